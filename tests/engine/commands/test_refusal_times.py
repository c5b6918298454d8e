"""How long a refusal takes that needs no model: each command's usual mistakes, every one in a process of its own.

Seconds are of the processor, so that what else the machine does counts less. `-s` prints the table.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.commands.judged import command, environment

pytestmark = pytest.mark.slow
MOST_S = 3.0  # a second on an idle machine of two cores; beside other work a core does less
K1 = "--variant smollm2_135m_k1"
REFUSED = f"""
rollout --variant nobody
rollout --variant bad.toml
rollout {K1} --set no.such=1
rollout {K1} --layers abc
rollout {K1} --layers 99
rollout {K1} --vary nothing=1
rollout {K1} --requests nowhere.csv
rollout {K1} --judge nobody
rollout --model nowhere --pairs pairs.csv --layers 1 --requests pairs.csv
extract --variant nobody
extract {K1} --pairs nowhere.csv
sweep --variant nobody
sweep {K1} --pairs nowhere.csv
ablate {K1} --pairs nowhere.csv
map --variant nobody
behave --variant nobody
regrow --variant nobody
transfer --variant nobody
sideeffects --variant nobody
study nobody
edit --variant nobody --out x
edit {K1} --pairs nowhere.csv --out x
edit --verify nowhere --base nowhere
edit --merge nowhere --base nowhere --out x
audit nowhere
replay nowhere
compare nowhere elsewhere
convert-qwen1 nowhere out
judge nowhere
judge empty --judge nobody
label nowhere
report nowhere
export nowhere --to csv --out x
power nowhere --difference 0.1
reproduce nobody
pair nowhere.json --judge offline --out x
doctor nowhere
doctor empty
new mine --model nowhere
config no.such.key
cache --clean nothing
chat --variant nobody
chat {K1} --pairs nowhere.csv
serve --variant nobody
serve {K1} --api-key x
serve {K1} --pairs nowhere.csv
bench --variant nobody --tasks arc_easy
""".strip().splitlines()
HEAVY = set("torch scipy sklearn statsmodels transformers pandas ray openai datasets lm_eval matplotlib".split())  # noqa: SIM905


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("refused")
    (path / "empty").mkdir()
    (path / "bad.toml").write_text("x = [")
    (path / "pairs.csv").write_text("declined,answered,prompt\nCall it.,What is it?,See it?\n")
    return path


@pytest.mark.parametrize("line", REFUSED)
def test_a_refusal_comes_before_anything_heavy_is_imported(folder: Path, line: str) -> None:
    module, *arguments = line.split()
    own = {
        **environment(folder),
        "REFUSAL_ROLLOUT_CACHE": os.environ.get("REFUSAL_ROLLOUT_CACHE", ""),
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            command(module.replace("-", "_"), *arguments), cwd=folder, env=own, stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, lines = usage.ru_utime + usage.ru_stime, (folder / "said").read_text().splitlines()
    imported = {entry.rpartition("|")[2].strip() for entry in lines if entry.startswith("import time:")}
    print(f"{seconds:5.2f} s  bin/{line}", file=sys.stderr)
    assert process.returncode == 2
    assert sorted(imported & HEAVY) == []
    assert seconds < MOST_S
