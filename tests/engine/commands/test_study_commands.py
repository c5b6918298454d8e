"""The study commands as a user runs them, on SmolLM2, each against an independent calculation of what it says."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.browser import chromium, open_page
from tests.commands import ran
from tests.dense import without

ROOT = Path(__file__).parents[3]
LAYER, PAIRS, HELD_OUT, REQUESTS = 22, 24, 16, 12
pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("smollm2_dir")]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short file of held-out pairs."""
    lines = (ROOT / "extraction/data/selection_pairs.jsonl").read_text().splitlines()[:HELD_OUT]
    file = tmp_path_factory.mktemp("data") / "held_out.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


@pytest.fixture(scope="module")
def settings(held_out: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    keys = {
        "data.num_pairs": PAIRS,
        "data.num_requests": REQUESTS,
        "data.num_answerable": 8,
        "data.selection_pairs": held_out,
        "sampling.max_tokens": 16,
    }
    out = str(tmp_path_factory.mktemp("runs") / "run")
    return ["--variant=smollm2_135m_k1", "--out", out, *(f"--set={key}={value}" for key, value in keys.items())]


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"engine.commands.{module}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def result(done: subprocess.CompletedProcess[str]) -> Row:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def extracted(settings: list[str]) -> Row:
    flags = ["--estimators=probe,pca", "--unrelated", "--padded"]
    return result(run("extract", *settings, *flags, "--positions=last_instruction", "--json"))


@pytest.fixture(scope="module")
def streams(smollm2_dir: Path, held_out: str, machine_dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Last-token stream that enters block 22 of every prompt, one prompt at a time, by output_hidden_states: float64."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    model = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=machine_dtype, attn_implementation="eager").eval()
    files = {"train": ROOT / "extraction/data/train_pairs.jsonl", "held": Path(held_out)}
    found = {}
    for name, file in files.items():
        rows = [json.loads(line) for line in file.read_text().splitlines()][: PAIRS if name == "train" else None]
        for side in ("declined", "answered"):
            vectors = []
            for row in rows:
                messages = [{"role": "user", "content": row[side]}]
                ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
                with torch.inference_mode():
                    vectors.append(model(ids, output_hidden_states=True).hidden_states[LAYER][0, -1].double())
            found[f"{name} {side}"] = torch.stack(vectors)
    return found


@pytest.mark.slow
def test_separability_on_held_out_pairs_equals_one_prompt_at_a_time(extracted: Row, streams: dict[str, torch.Tensor]) -> None:
    unit = torch.nn.functional.normalize(streams["train declined"].mean(0) - streams["train answered"].mean(0), dim=0)
    declined, answered = ((streams[f"held {side}"] @ unit).numpy() for side in ("declined", "answered"))
    expected_d = (declined.mean() - answered.mean()) / np.sqrt((declined.var(ddof=1) + answered.var(ddof=1)) / 2)
    expected_auroc = roc_auc_score([1] * HELD_OUT + [0] * HELD_OUT, np.concatenate([declined, answered]))
    found = extracted["geometry"]["positions"]["last"]["estimators"]["mean_difference"]
    print(f"d {found['cohens_d'][LAYER]} (alone {expected_d:.4f}), AUROC {found['auroc'][LAYER]} (alone {expected_auroc:.4f})")
    assert found["cohens_d"][LAYER]["value"] == pytest.approx(expected_d, rel=1e-4)
    assert found["auroc"][LAYER]["value"] == pytest.approx(expected_auroc, abs=2e-3)
    assert found["cohens_d"][LAYER]["low"] > extracted["geometry"]["positions"]["last"]["null"][LAYER]["random"]["cohens_d"][1]


@pytest.mark.slow
def test_the_geometry_has_every_part_and_its_numbers_are_possible(extracted: Row) -> None:
    geometry = extracted["geometry"]
    assert list(geometry["positions"]) == ["last", "last_instruction"]
    assert list(geometry["positions"]["last"]["estimators"]) == ["mean_difference", "probe", "pca"]
    assert (geometry["num_pairs"], geometry["num_held_out"]) == (PAIRS, HELD_OUT)
    cosines = np.array(geometry["cosines"]["true"])[1:, 1:]
    assert np.allclose(np.diag(cosines), 1) and np.allclose(cosines, cosines.T)
    assert min(value for value in extracted["padded"]["cosine"] if value is not None) < 0.99
    assert geometry["structure"]["answer"] in ("one direction", "low rank", "rotating", "more than one", "cannot tell")
    assert geometry["unrelated"]["num_prompts"] == PAIRS
    cosines = {name: geometry["unrelated"][name]["cosine_to_mean_difference"][LAYER] for name in ("twins", "unrelated")}
    assert cosines["twins"] == pytest.approx(1) and 0.3 < cosines["unrelated"] < 0.999
    assert geometry["stability"][str(LAYER)]["split_half"]["value"] > geometry["stability"][str(LAYER)]["null"]["high"]


@pytest.mark.slow
def test_every_estimator_and_the_response_have_directions_of_their_own(extracted: Row, settings: list[str]) -> None:
    found = result(run("extract", *settings, "--estimators=all", "--positions=response", "--json"))["geometry"]
    assert list(found["positions"]) == ["last", "last_instruction", "response"]  # what was measured before stays
    own = found["positions"]["last"]["estimators"]
    assert set(own) == {"mean_difference", "projected", "probe", "pca", "winsorised"}
    response = found["positions"]["response"]["estimators"]["mean_difference"]["auroc"][LAYER]
    cosine = found["positions"]["response"]["cosine_to_main"][LAYER]
    print(f"AUROC at the response, layer {LAYER}: {response}; cosine to last {cosine}")
    assert response["value"] > 0.7 and abs(cosine) < 0.9


@pytest.mark.slow
def test_the_reading_counts_what_the_base_did(settings: list[str], tmp_path: Path) -> None:
    """On 44 requests: of fewer the base declines too few for a reading."""
    folder = tmp_path / "reading"
    own = [*settings[:1], "--out", str(folder), *settings[3:], "--set=data.num_requests=44"]
    extracted = result(run("extract", *own, "--positions=last_instruction", "--harmfulness", "--json"))
    rows = pd.read_parquet(folder / "rollouts.parquet").merge(pd.read_parquet(folder / "scores.parquet"))
    base = rows[(rows.form == "base") & (rows.kind == "declined")]
    counts = extracted["reading"]["counts"]
    assert (counts["declined"], counts["answered"]) == (int(base.declined.sum()), int((~base.declined.astype(bool)).sum()))
    for position in ("last_instruction", "last"):
        assert max(row["value"] for row in extracted["reading"]["positions"][position]["asked"]["auroc"]) > 0.9


@pytest.mark.slow
def test_every_direction_goes_through_the_same_edit_with_controls_beside(extracted: Row, settings: list[str]) -> None:
    found = result(run("extract", *settings, "--estimators=probe,pca", "--unrelated", "--effect", "--json"))
    rows = {row["name"]: row for row in found["effect"]["rows"]}
    estimators = ["mean_difference", "probe", "pca"]
    assert list(rows) == ["base", *estimators, "against unrelated", "random1", "random2", "random3", "shuffled"]
    assert {row["n"] for row in rows.values()} == {REQUESTS}
    print({name: round(row["compliance"]["value"], 2) for name, row in rows.items()})
    assert rows["mean_difference"]["compliance"]["value"] > rows["base"]["compliance"]["value"] + 0.3


@pytest.mark.slow
def test_a_second_extract_answers_from_what_is_there(extracted: Row, settings: list[str]) -> None:
    started = time.monotonic()
    again = ran("extract", *settings)  # asked for less: what an earlier call measured stays
    seconds = time.monotonic() - started
    print(again.stdout[-600:], f"{seconds:.1f} s")
    assert again.returncode == 0 and "stage: geometry" not in again.stderr
    assert "Do the layers' means share a line?" in again.stdout and "pair by pair?" in again.stdout


@pytest.mark.slow
def test_ablation_curves_start_at_the_base_and_end_without_declining(extracted: Row, settings: list[str]) -> None:
    options = ["--alphas=0,1", "--site=inputs", "--add=1", "--num-prompts=12", "--max-tokens=24"]
    rows = result(run("ablate", *settings, *options, "--json"))["rows"]
    by_key = {(row["mode"], row["subject"], row["alpha"]): row for row in rows if row["mode"] != "none"}
    base, answered = (
        next(row for row in rows if row["mode"] == "none" and row["requests"] == side) for side in ("declined", "answered")
    )
    print(
        {key: row["declined"]["value"] for key, row in by_key.items()}, base["declined"]["value"], answered["declined"]["value"]
    )
    for subject in ("direction", "random", "shuffled"):
        same = by_key["ablate", subject, 0.0]
        assert same["declined"] == base["declined"] and same["compliance"] == base["compliance"]
    assert by_key["ablate", "direction", 1.0]["declined"]["value"] < base["declined"]["value"] - 0.3
    assert by_key["add", "direction", 1.0]["declined"]["value"] > answered["declined"]["value"] + 0.2
    assert by_key["add", "random", 1.0]["declined"]["value"] <= answered["declined"]["value"] + 0.2


@pytest.mark.slow
def test_what_is_removed_does_not_come_back_along_itself(extracted: Row, settings: list[str]) -> None:
    found = result(run("regrow", *settings, "--rounds=2", "--num-prompts=8", "--max-tokens=8", "--json"))
    base, first, second = found["rounds"]
    expected = extracted["geometry"]["positions"]["last"]["estimators"]["mean_difference"]["cohens_d"]
    assert base["cohens_d"] == expected  # round 0 is the geometry
    print("cosine to what was removed:", [round(value, 2) for value in first["cosine_to_removed"][1:]])
    assert max(first["cosine_to_removed"][5:]) < 0.2 and (first["k"], second["k"]) == (1, 2)
    assert abs(first["cosine_to_base"][LAYER]) < 0.9
    growth = [row["value"] for row in found["controls"]["random"]["growth"][1:]]
    assert min(growth) > 0.8 and max(growth) < 1.25  # a random cut changes little
    assert (found["controls"]["random"]["k"], found["controls"]["shuffled"]["k"]) == (2, 1)


@pytest.mark.slow
def test_divergence_equals_two_models_side_by_side(
    extracted: Row, settings: list[str], smollm2_dir: Path, machine_dtype: torch.dtype
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = result(run("behave", *settings, "--num-prompts=4", "--json"))
    options: Row = {"dtype": torch.bfloat16, "attn_implementation": "eager"}
    base, edited = (AutoModelForCausalLM.from_pretrained(smollm2_dir, **options).eval() for _ in range(2))
    direction = load_file(Path(settings[2]) / "directions.safetensors")["mean_difference"][LAYER]
    with torch.no_grad():
        for name, weight in edited.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.copy_(without(weight, direction[None]))  # rounded to the checkpoint's type, then widened
    base, edited = base.to(machine_dtype), edited.to(machine_dtype)
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    rows = pd.read_parquet(Path(settings[2]) / "rollouts.parquet")
    rows = rows[(rows.form == "base") & (rows.kind == "declined")].head(4)
    means = []
    for row in rows.itertuples():
        messages = [{"role": "user", "content": row.prompt}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        ids = torch.tensor([[*prompt, *row.response_token_ids]])
        with torch.inference_mode():
            first, second = (model(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1) for model in (base, edited))
        means.append(float((first.exp() * (first - second)).sum(-1).mean()))
    told = next(row for row in found["kl"] if row["kind"] == "declined")
    print(f"KL a token: {told['per_token']['value']}, side by side {np.mean(means):.6f}")
    assert told["n"] == 4 and told["per_token"]["value"] == pytest.approx(np.mean(means), rel=3e-4)
    lengths = {(row["variant"], row["kind"]): row for row in found["length"]}
    assert lengths["base", "declined"]["n"] == REQUESTS and lengths["base", "declined"]["tokens"]["value"] <= 16


@pytest.mark.slow
def test_an_adapter_of_the_edit_writes_along_the_direction(extracted: Row, settings: list[str], tmp_path: Path) -> None:
    edit = ["--variant=smollm2_135m_k1", "--run", settings[2], *settings[3:], "--out", str(tmp_path / "lora"), "--adapter"]
    assert (done := run("edit", *edit)).returncode == 0, done.stderr
    found = result(run("transfer", *settings, "--adapter", str(tmp_path / "lora"), "--json"))
    cosines = [row["cosine"][LAYER] for row in found["rows"]]
    print(
        f"{len(cosines)} tensors, |cosine| to layer {LAYER}: {min(cosines):.5f} to {max(cosines):.5f}; random {found['random']}"
    )
    assert len(cosines) == 60 and min(cosines) > 0.9999 and found["random"][1] < 0.1


@pytest.mark.slow
def test_directions_go_to_a_sibling_of_the_same_width(
    extracted: Row, settings: list[str], smollm2_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sibling = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.bfloat16)  # saved as it is, never run
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sibling.parameters():
            parameter.add_(0.02 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    sibling.save_pretrained(tmp_path / "sibling")
    AutoTokenizer.from_pretrained(smollm2_dir).save_pretrained(tmp_path / "sibling")
    found = result(run("transfer", *settings, "--to", str(tmp_path / "sibling"), "--json"))
    rows = {row["name"]: row["compliance"]["value"] for row in found["effect"]["rows"]}
    print(f"cosine at layer {LAYER}: {found['cosine'][LAYER]:.3f}; compliance {rows}")
    assert 0.8 < found["cosine"][LAYER] < 0.99999 and list(rows) == ["base", "transferred", "own"]
    assert rows["transferred"] > rows["base"] + 0.3


@pytest.mark.slow
def test_the_page_follows_the_studies(extracted: Row, settings: list[str]) -> None:
    page = Path(settings[2]) / "report.html"
    text = page.read_text()
    print(f"{page.stat().st_size / 1e6:.2f} MB")
    with chromium() as session:
        open_page(session, page)
    for title in ("Separability by layer", "Naive padded extraction"):
        assert title in text
    assert page.stat().st_size < 4e6


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("extract", ["--estimators=median"], "Unknown estimator 'median'"),
        ("extract", ["--positions=middle"], "Unknown position 'middle'"),
        ("ablate", ["--alphas=half"], "--alphas takes numbers with commas"),
        ("ablate", ["--by=both"], "--by takes hooks or engine; found 'both'"),
        ("ablate", ["--site=head"], "--site takes inputs, writes or both; found 'head'"),
        ("transfer", [], "Name another model with --to DIR, or a LoRA with --adapter DIR"),
        ("transfer", ["--adapter=nowhere"], "is no adapter folder"),
        ("regrow", ["--layers=40"], "Layer 40 is out of range"),
        ("extract", ["--layers=40"], "Layer 40 is out of range"),
        ("regrow", ["--set=directions.position=response"], "Set directions.position to a token"),
        (
            "extract",
            ["--set=data.selection_pairs=embedded:train_pairs"],
            "64 training prompt(s) are also held-out prompts",
        ),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(tmp_path: Path, module: str, arguments: list[str], message: str) -> None:
    out = tmp_path / "run"
    done = ran(module, "--variant=smollm2_135m_k1", "--out", out, "--set=data.num_pairs=32", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (out / "geometry.json").exists() and not list(out.glob("*.safetensors"))


@pytest.mark.slow
def test_a_direction_for_another_width_is_refused(extracted: Row, settings: list[str], llama_dir: Path) -> None:
    done = ran("transfer", *settings, "--to", llama_dir)
    assert (
        done.returncode == 2 and "hidden size 48; the directions of embedded:smollm2-135m-instruct have width 576" in done.stderr
    )
