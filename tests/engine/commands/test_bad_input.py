"""Bad input at the command line: one message, exit 2, nothing written, no model loaded."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import ran
from tests.disk import run_on_tiny_disk

ROOT = Path(__file__).parents[3]


def rollout(tmp_path: Path, *arguments: str, module: str = "rollout") -> subprocess.CompletedProcess[str]:
    return ran(module, *arguments, cwd=tmp_path)


def pairs_file(tmp_path: Path, content: object) -> str:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(content))
    return str(path)


SMOLLM2 = ["--variant", "smollm2_135m_k1"]


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--variant", "smollm2_k1"], ["Unknown variant 'smollm2_k1'", "smollm2_135m_k1"]),
        ([*SMOLLM2, "--set", "sampling.max_tokn=1"], ["unknown key 'sampling.max_tokn'", "max_tokens"]),
        ([*SMOLLM2, "--alpha", "all"], ["edit.alpha = 'all'", "expected a number"]),
        ([*SMOLLM2, "--layers", "one"], ["--layers takes layers such as 16,15,17"]),
        ([*SMOLLM2, "--layers", "31"], ["Layer 31 is out of range", "layers 0 to 30"]),
        ([*SMOLLM2, "--set", "directions.k=2"], ["k = 2 is larger than the number of layers given (1)"]),
        ([*SMOLLM2, "--set", "nonsense"], ["--set takes KEY=VALUE"]),
        ([*SMOLLM2, "--num-requests", "501"], ["holds 500 prompts; 501 were asked for"]),
        ([*SMOLLM2, "--columns", "a,b,c"], ["--columns takes harmful,safe of pair files, or one name of request files"]),
        ([*SMOLLM2, "--columns", "a,b", "--columns", "c,d"], ["--columns takes harmful,safe", "once each; found 'c,d'"]),
        ([*SMOLLM2, "--pairs", "nowhere.json"], ["Prompt file nowhere.json does not exist"]),
        ([*SMOLLM2, "--model", "nowhere/at/all"], ["Model folder nowhere/at/all does not exist"]),
        (["--variant", "llama32_3b_k5"], ["meta-llama/Llama-3.2-3B-Instruct is not in the local hub cache", "--model DIR"]),
        (
            [*SMOLLM2, "--set", "edit.embeddings=true", "--set", "edit.untie=true"],
            ["edit.untie is not taken up by a running engine", "bin/edit"],
        ),
        ([*SMOLLM2, "--directions", "nowhere.safetensors"], ["nowhere.safetensors is not a readable direction file"]),
        ([*SMOLLM2, "--set", "vllm.tensor_parallel_size=64"], ["vllm.tensor_parallel_size = 64, but this"]),
        (["--variant", "gemma_2b_k1"], ["no published layer", "bin/sweep --variant gemma_2b_k1", "--layers"]),
    ],
)
@pytest.mark.usefixtures("smollm2_dir")
def test_bad_arguments_get_one_message_and_exit_2(tmp_path: Path, arguments: list[str], messages: list[str]) -> None:
    started = time.monotonic()
    done = rollout(tmp_path, *arguments)
    print(f"{time.monotonic() - started:.2f} s: {done.stderr}")
    assert done.returncode == 2 and done.stdout == ""
    said, error, _ = done.stderr.partition("error: ")
    assert said == "" or said.endswith("and the prompts\n")  # a word before anything is read
    assert error
    assert "Traceback" not in done.stderr
    assert all(message in done.stderr for message in messages)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([["a", "b"], ["c"]], "row 2: expected [declined, answered], found a list of 1"),
        ([["a", "b"], ["c", ""]], "row 2: answered must be text that is not empty"),
    ],
)
def test_a_bad_pairs_file_is_named_with_its_index(tmp_path: Path, content: object, message: str) -> None:
    done = rollout(tmp_path, *SMOLLM2, "--pairs", pairs_file(tmp_path, content))
    assert done.returncode == 2 and message in done.stderr


def test_pickles_gguf_and_unknown_model_types_are_refused(tmp_path: Path, llama_dir: Path) -> None:
    found = {}
    for how, message in (("pickle", "pickled weights"), ("gguf", "is GGUF"), ("type", "Model type 'mamba' is not known")):
        model = Path(shutil.copytree(llama_dir, tmp_path / how))
        if how == "pickle":
            (model / "model.safetensors").rename(model / "pytorch_model.bin")
        elif how == "gguf":
            (model / "model.safetensors").rename(model / "model.gguf")
        else:
            config = json.loads((model / "config.json").read_text())
            (model / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
        done = rollout(tmp_path, *SMOLLM2, "--model", str(model), "--layers", "1")
        found[how] = (done.returncode == 2 and message in done.stderr) or done.stderr
    assert found == {"pickle": True, "gguf": True, "type": True}
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("smollm2_dir")
def test_folders_that_are_not_ours_stay_as_they_are(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "notes.txt").write_text("mine")
    run = rollout(tmp_path, *SMOLLM2, "--out", str(theirs), "--clean")
    edit = rollout(tmp_path, *SMOLLM2, "--out", str(theirs), module="edit")
    assert run.returncode == edit.returncode == 2
    assert "not a run directory of ours" in run.stderr and "not one of ours" in edit.stderr
    assert [file.name for file in theirs.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("smollm2_dir")
def test_a_full_disk_is_seen_before_anything_is_extracted(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    command = [sys.executable, "-m", "engine.commands.rollout", *SMOLLM2, "--out", str(disk / "run")]
    done = run_on_tiny_disk(disk, command, cwd=ROOT)
    assert done.returncode == 2 and "No room for" in done.stderr and "--out" in done.stderr


@pytest.mark.usefixtures("smollm2_dir")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "sampling.max_tokens=2000"], "leaves no room for a prompt"),
        (["--set", "sampling.max_tokens=990"], "the model's window leaves room for 33"),
        (["--set", "vllm.max_model_len=64"], "leaves no room for a prompt"),
        (["--out", "afile/run"], "is a file. Choose another with --out."),
    ],
)
def test_what_does_not_fit_is_seen_before_anything_is_written(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "afile").write_text("")
    done = rollout(tmp_path, *SMOLLM2, *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "hub"] == ["afile"]


def test_a_model_without_a_tokenizer_is_named(tmp_path: Path, llama_dir: Path) -> None:
    done = rollout(tmp_path, *SMOLLM2, "--model", str(llama_dir), "--layers", "1", "--set", "sampling.max_tokens=8")
    assert done.returncode == 2 and "has no tokenizer" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_columns_are_those_of_pair_and_of_request_files(tmp_path: Path) -> None:
    done = rollout(tmp_path, *SMOLLM2, "--columns", "harmful,safe", "--columns", "goal", "--dry-run", "--json")
    data = json.loads(done.stdout)["config"]["data"]
    assert (data["pair_columns"], data["request_column"]) == (["harmful", "safe"], "goal")


def test_a_dry_run_refuses_what_cannot_run(tmp_path: Path) -> None:
    done = rollout(tmp_path, "--variant", "smollm2_135m_k1", "--model", "/nonexistent", "--pairs", "/nope.json", "--dry-run")
    assert done.returncode == 2
    assert "Prompt file /nope.json does not exist" in done.stderr
    assert done.stdout == ""


def test_a_dry_run_of_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    done = rollout(tmp_path, "--variant", "llama32_3b_k5", "--dry-run")
    assert done.returncode == 2
    assert "give its folder with --model DIR" in done.stderr


def test_the_resolved_configuration_has_the_flags_and_the_files_keys(tmp_path: Path) -> None:
    done = rollout(tmp_path, "--variant", "llama32_3b_k5", "--set", "edit.alpha=0.5", "--json", module="config")
    found = {key["name"]: key["value"] for key in json.loads(done.stdout)}
    assert found["directions.layers"] == "[16, 15, 17, 13, 9]"
    assert found["edit.alpha"] == "0.5"
    assert found["model.chat_template_kwargs"] == '{date_string = "26 Jul 2024"}'
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("module", ["rollout", "edit", "bench_rollout", "compare"])
def test_help_imports_nothing_heavy(tmp_path: Path, module: str) -> None:
    code = f"import sys; sys.argv = ['x', '--help']; from engine.commands.{module} import app\n"
    code += "try: app()\nexcept SystemExit: pass\nprint('MODULES', *sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout
    assert "Usage" in shown
    modules = set(shown.split("MODULES")[1].split())
    assert not {"torch", "transformers", "vllm", "pyarrow", "pydantic", "numpy"} & modules
