"""bin/sweep as a user runs it, on SmolLM2: the tables, SIGKILL and resume, the winner's file, and what bad input gets."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.commands import ran

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("smollm2_dir")
TEST = 8  # test requests
SMALL = [
    "--variant=smollm2_135m_k1",
    "--layers=14,21-22",
    "--subspaces=top2",
    f"--num-requests={TEST}",
    "--set=data.num_pairs=16",
    "--set=sampling.max_tokens=8",
    "--set=sweep.short_tokens=8",
    "--set=sweep.screen_prompts=8",
    "--set=sweep.first_round=8",
    "--set=sweep.finalists=1",
    "--set=sweep.controls=0",
    "--set=sweep.max_kl=0.6",
    "--set=sweep.min_induce=-5",
]


def sweep(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "engine.commands.sweep", *arguments]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short selection file: the first embedded pairs."""
    lines = (ROOT / "extraction/data/selection_pairs.jsonl").read_text().splitlines()[:12]
    file = tmp_path_factory.mktemp("data") / "selection.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


@pytest.fixture(scope="module")
def finished(selection: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = ran("sweep", *SMALL, "--selection", selection, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    assert json.loads(done.stdout)["winner"]["file"] == "winner.toml"
    return out


def tables(folder: Path) -> dict[str, Any]:
    """What a sweep ends with, apart from its times."""
    names = ("sweep", "screen", "rollouts", "likelihoods", "scores")
    found = {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
    return found | {"summary": json.loads((folder / "summary.json").read_text())}


@pytest.mark.engine
def test_the_page_shows_the_confirmation_and_the_finalists_responses_without_controls(finished: Path) -> None:
    from engine.display.sweep_tables import confirmation_table, marginal_table
    from engine.report.browser import browser_data
    from engine.report.collect import read_run
    from engine.report.tables import variant_rows

    run = read_run(finished)
    table, marginal, data = confirmation_table(run.summary), marginal_table(run.summary), browser_data(run, 150)
    assert marginal is not None and data is not None
    confirmed = pd.read_parquet(finished / "sweep.parquet").query("stage == 'confirm'")
    assert [row[0] for row in table.rows] == list(confirmed.variant)
    assert [row[0] for row in marginal.rows] == ["1", "2"] and marginal.rows[1][-1][0] in "+-"
    controls = set(confirmed.variant[confirmed.kind.isin(["random", "shuffled"])])
    assert data["variants"][0] == "base" and not controls & set(data["variants"]) and len(data["prompts"]) == TEST
    assert {row["name"] for row in variant_rows(run)} == set(confirmed.variant) - controls - {"base"}
    page = (finished / "report.html").read_text()
    assert (
        "Confirmation on test prompts" in page
        and "Effect by layer" in page
        and (finished / "plots/effect-by-layer.png").is_file()
    )


def test_the_table_has_base_finalists_and_controls_with_paired_tests(finished: Path) -> None:
    stages = pd.read_parquet(finished / "sweep.parquet")
    confirm = stages[stages.stage == "confirm"].set_index("variant")
    print(confirm[["k", "compliance", "coherence", "product", "selection_product", "p", "p_holm"]].to_string())
    assert sorted(confirm.kind) == ["base", "single", "subspace"] and confirm.kind.iloc[0] == "base"
    edited = confirm[confirm.kind != "base"]
    claimed = edited[edited.kind.isin(["single", "subspace"])]
    assert (claimed.p_holm >= claimed.p).all() and edited.p.notna().all() and confirm.p.isna().sum() == 1
    assert edited.p_mcnemar.notna().all()
    assert confirm.kinds.notna().all()
    assert (confirm.n == TEST).all() and {"screen", "race 1", "selection", "confirm"} <= set(stages.stage)
    chosen = edited[edited.kind.isin(["single", "subspace"])]
    assert chosen.selection_product.iloc[0] == chosen.selection_product.max()
    screened = stages[stages.stage == "screen"].set_index("variant")
    assert screened.kl["base"] < 1e-3 < screened.kl["layer22"] and screened.induce["base"] < 0
    assert len(screened) == 4 and screened.kl["layer14"] > 1 > screened.kl["layer22"] and not screened.kept["layer14"]


@pytest.mark.slow
def test_controls_are_searched_for_as_the_winner_was_and_tested_beside_it(selection: str, tmp_path: Path) -> None:
    done = run(sweep(*SMALL, "--set=sweep.controls=1", "--selection", selection, "--out", str(tmp_path / "run")))
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    stages = pd.read_parquet(tmp_path / "run" / "sweep.parquet")
    confirm, screened = (stages[stages.stage == stage] for stage in ("confirm", "screen"))
    assert sorted(confirm.kind) == ["base", "random", "shuffled", "single", "subspace"]
    assert (screened.kind == "shuffled").sum() == (screened.kind == "random").sum() == 3
    for kind in ("shuffled", "random"):
        own = stages[(stages.kind == kind) & (stages.stage == "selection")]
        chosen = confirm[confirm.kind == kind].variant.item()
        assert own.set_index("variant")["product"][chosen] == own["product"].max()
    assert "against controls (shuffled labels, 1 drawn, each chosen as it was): p" in " ".join(done.stdout.split())


@pytest.mark.engine
def test_no_prompt_both_chooses_and_tests(finished: Path) -> None:
    rows = pd.read_parquet(finished / "rollouts.parquet")
    chosen_by = set(rows[rows.split.isin(["race", "selection"])].prompt)
    assert chosen_by and not chosen_by & set(rows[rows.split == "test"].prompt)
    assert not rows.duplicated(["variant_hash", "prompt_id"]).any()
    assert set(rows[rows.split == "test"].prompt_id) == {f"declined/{number:05d}" for number in range(TEST)}


@pytest.mark.engine
def test_the_winners_file_is_a_variant_with_the_winners_hash(finished: Path) -> None:
    winner = json.loads((finished / "summary.json").read_text())["winner"]
    script = (
        "import sys; from pathlib import Path; from engine.configs.load import load_config; "
        "from engine.runs.session import Session; "
        "from engine.rollout.variants import load_variant; "
        "print(load_variant(Session(load_config(sys.argv[1])), Path(sys.argv[2])).hash)"
    )
    found = run([sys.executable, "-c", script, str(finished / "winner.toml"), str(finished / "directions/last.safetensors")])
    assert found.stdout.strip() == winner["variant_hash"], found.stderr


@pytest.mark.engine
def test_every_variant_that_was_confirmed_or_is_on_the_front_is_a_file_of_its_own_name(finished: Path) -> None:
    from engine.configs.load import load_config

    summary = json.loads((finished / "summary.json").read_text())
    configs = [load_config(str(file)) for file in sorted((finished / "variants").glob("*.toml"))]
    claimed = {row["variant"] for row in summary["confirm"] if row["kind"] in ("single", "subspace")}
    named = {f"smollm2-135m-instruct-{name}" for name in claimed | {point["variant"] for point in summary["front"]}}
    assert {config.variant for config in configs} == named == set(summary["variants"])
    assert load_config(str(finished / "winner.toml")).variant == summary["winner"]["variant"]
    two = next(config for config in configs if config.variant.endswith("top2"))
    assert two.directions.layers in ([21, 22], [22, 21])


@pytest.mark.engine
def test_a_second_run_prints_the_same_and_starts_nothing(finished: Path, selection: str) -> None:
    done = ran("sweep", *SMALL, "--selection", selection, "--out", finished)
    print(done.stdout)
    assert "bound by the engine" in done.stdout
    assert done.returncode == 0 and "starting vLLM" not in done.stderr
    for name in ("product_by_layer.png", "screen_by_layer.png", "front.png"):
        assert (finished / name).stat().st_size > 10_000
    other = ran("sweep", *SMALL, "--selection", selection, "--out", finished, "--alphas", "0.5")
    assert other.returncode == 2 and "config.sweep.alphas: [1.0] -> [0.5]" in other.stderr


def kill_at(command: list[str], sign: str) -> None:
    """SIGKILL the command's process group once a line of stderr holds `sign`."""
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stderr is not None
    assert any(sign in line for line in process.stderr), f"no line with {sign!r}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


EVERY_STAGE = [
    "stage: directions",
    "screen: refusals begin",
    "rollouts (race)",
    "race: 8 prompts",
    "rollouts (test)",
    "likelihoods",
]


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("signs", [["rollouts (selection)"], EVERY_STAGE], ids=["once", "in every stage"])
def test_sigkill_and_running_again_ends_with_the_same_tables(
    signs: list[str], finished: Path, selection: str, tmp_path: Path
) -> None:
    command = sweep(*SMALL, "--selection", selection, "--out", str(tmp_path / "killed"))
    for sign in signs:
        kill_at(command, sign)
    done = run(command)
    assert done.returncode == 0, done.stderr
    whole, killed = tables(finished), tables(tmp_path / "killed")
    for name, table in whole.items():
        if name == "summary":
            assert killed[name] == table
        else:
            pd.testing.assert_frame_equal(killed[name], table, check_exact=False, rtol=1e-6)
    assert not list((tmp_path / "killed").glob("*.shards"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name a variant with --variant, or a model with --model"),
        (["--variant=smollm2_135m_k1", "--layers=40"], "Layer 40 is out of range"),
        (["--variant=smollm2_135m_k1", "--alphas="], "alphas is empty, so there is nothing to try"),
        (["--variant=smollm2_135m_k1", "--subspaces=best"], "expected numbers such as 16,15,17 or 4-20"),
        (["--variant=smollm2_135m_k1", "--engines=64"], "--engines 64, but this machine has"),
        (["--variant=smollm2_135m_k1", "--set=sweep.first_round=200"], "asks for 200 selection pairs and there are 128"),
        (["--variant=smollm2_135m_k1", "--set=sweep.depth=1"], "unknown key 'sweep.depth'. Did you mean 'max_depth'?"),
        (["--model=/nowhere", "--pairs=embedded:train_pairs"], "Model folder /nowhere does not exist"),
    ],
)
def test_bad_input_gets_one_message_and_nothing_is_written(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = ran("sweep", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unreachable_ray_address_is_an_error_before_a_model_loads(tmp_path: Path) -> None:
    command = sweep("--variant=smollm2_135m_k1", "--engines=2", "--out", str(tmp_path / "out"))
    done = run(command, RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 2 and "RAY_ADDRESS=127.0.0.1:1 cannot be reached" in done.stderr
    assert "directions" not in done.stderr and not (tmp_path / "out").exists()


def test_a_model_without_a_file_takes_its_name_and_its_flags() -> None:
    flags = ["--model=embedded:smollm2-135m-instruct", "--pairs=embedded:train_pairs", "--layers=3-5", "--subspaces=none"]
    config = json.loads(ran("sweep", *flags, "--dry-run", "--json").stdout)["config"]
    assert config["variant"] == "smollm2-135m-instruct"
    assert config["sweep"]["layers"] == [3, 4, 5]


@pytest.mark.slow
@pytest.mark.engine
def test_the_benchmark_prints_its_ratios_with_what_they_were_measured_on() -> None:
    command = [sys.executable, "-m", "engine.commands.bench_sweep", "--layers=21-22", "--num-prompts=24", "--json"]
    settings = ["sampling.max_tokens=12", "data.num_pairs=32", "sweep.first_round=8", "sweep.screen_prompts=12"]
    done = run([*command, *(f"--set={setting}" for setting in settings)])
    result = json.loads(done.stdout)
    print(result)
    names = {"speedup_over_hooks", "speedup_over_restarts", "speedup_screened", "switch_seconds", "ratio_to_plain"}
    assert all(result[name] > 0 for name in names) and result["layers"] == 2
    assert {"versions", "hardware", "commit", "model"} <= result.keys()


@pytest.mark.slow
@pytest.mark.engine
def test_a_hot_swap_and_its_checkpoint_give_the_same_greedy_tokens() -> None:
    done = run(sweep("--check-export=smollm2_135m_k3", "--num-requests=64", "--set=data.num_pairs=24", "--json"))
    report = json.loads(done.stdout)
    print(report)
    assert done.returncode == 0 and report["equal"] == report["prompts"] == 64 + 200


@pytest.mark.slow
@pytest.mark.engine
def test_an_exhaustive_sweep_over_alphas_and_positions_names_a_winner_that_can_be_run(selection: str, tmp_path: Path) -> None:
    arguments = [*SMALL, "--layers=21-22", "--alphas=0.5,1", "--positions=last_instruction,last", "--subspaces=top2,20+22"]
    done = run(sweep(*arguments, "--exhaustive", "--selection", selection, "--out", str(tmp_path / "out"), "--json"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    print(done.stderr)
    selected = {row["variant"] for row in summary["stages"] if row["stage"] == "selection"}
    assert {"layer22-a1", "layer21-last_instruction-a0.5", "top2-a0.5", "subspace20-22-a1", "base"} <= selected and len(
        selected
    ) == 13
    kinds = [row["kind"] for row in summary["confirm"]]
    assert kinds.count("single") == 1 and kinds.count("subspace") == 2 and not (tmp_path / "out" / "screen.parquet").exists()
    config = tomllib.loads((tmp_path / "out" / "winner.toml").read_text())
    winner = next(row for row in summary["confirm"] if row["variant"] == summary["winner"]["name"])
    position, layers = config["directions"]["position"], config["directions"]["layers"]
    assert winner["sources"] == [f"{position}@{layer}" for layer in layers] and config["edit"]["alpha"] == winner["alpha"]
    dry = run([sys.executable, "-m", "engine.commands.rollout", "--variant", str(tmp_path / "out" / "winner.toml"), "--dry-run"])
    assert dry.returncode == 0, dry.stderr


@pytest.mark.slow
@pytest.mark.engine
def test_two_engines_end_with_the_rows_of_one(finished: Path, selection: str, tmp_path: Path) -> None:
    done = run(sweep(*SMALL, "--selection", selection, "--out", str(tmp_path / "two"), "--engines=2"))
    assert done.returncode == 0, done.stderr
    assert "engine 2 of 2: starting in a Ray actor" in done.stderr
    one, two = tables(finished), tables(tmp_path / "two")
    keys = ["variant_hash", "prompt_id"]
    same = (one["rollouts"].response == two["rollouts"].response).mean()
    print(f"{same:.1%} of the texts are equal")
    assert two["rollouts"][keys].equals(one["rollouts"][keys]) and same > 0.9
