"""bin/doctor's answers on a tiny folder of every model type that the editor knows, and on folders with something wrong."""

import json
import re
from pathlib import Path

import pytest

from editing.families import FAMILIES
from engine.configs.schema import ModelConfig
from engine.runs.doctor import Examination, examine
from tests.tiny import BLOCKS, EDITOR_CONFIGS, HIDDEN, NEAR_CONFIGS, save_tiny, save_tokenizer
from tests.towers import TOWER_CONFIGS, save_towers

README = Path(__file__).parents[3] / "editing" / "README.md"
SAME_LAYOUT = {  # types that have a listed type's layout and no tiny model of their own
    **{"ministral": "ministral3", "granitemoeshared": "granitemoehybrid", "qwen3_5_moe": "qwen3_5"},
}
NAMES = [name for name in (*EDITOR_CONFIGS, *NEAR_CONFIGS, *TOWER_CONFIGS) if not name.endswith("square")]


def folder_of(name: str, directory: Path) -> Path:
    save = save_towers if name in TOWER_CONFIGS else save_tiny
    return save_tokenizer(save(name, directory))


def of(folder: Path, **settings: str) -> Examination:
    return examine(ModelConfig(path=str(folder), **settings))


@pytest.fixture(scope="module", params=NAMES)
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Examination]:
    return request.param, of(folder_of(request.param, tmp_path_factory.mktemp("doctor") / "model"))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return folder_of("llama", tmp_path / "llama")


def test_every_type_is_tried() -> None:
    assert {name.split()[0] for name in NAMES} | SAME_LAYOUT.keys() == set(FAMILIES)


def test_a_whole_folder_can_be_used(named: tuple[str, Examination]) -> None:
    assert named[1].against == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("llama", "runs LlamaForCausalLM"),
        ("olmo2", "runs Olmo2ForCausalLM through transformers' code"),
        ("helium", "does not list HeliumForCausalLM; it tries transformers' code"),
    ],
)
def test_how_vllm_runs_it_is_told(tmp_path: Path, name: str, says: str) -> None:
    assert of(folder_of(name, tmp_path / "model")).facts["vLLM"] == says


def test_its_type_and_size_are_told(named: tuple[str, Examination]) -> None:
    name, found = named
    assert found.facts["type"] == f"{name.split()[0]}, {BLOCKS} blocks, width {HIDDEN}"


def test_the_readme_says_of_it_what_the_doctor_says(named: tuple[str, Examination]) -> None:
    name, found = named
    label = found.facts["family"].partition(",")[0]
    behind = "yes" if "norm behind" in found.facts else "no"
    print(f"| {name} | {label} | {found.facts['writers']} | {behind} | {found.facts['head'].split(' (')[0]} |")
    rows = re.findall(rf"^\| {re.escape(name)} \| (.*?) \|$", README.read_text(), re.MULTILINE)
    assert [row.split(" | ")[:4] for row in rows] == [[label, found.facts["writers"], behind, found.facts["head"].split(" (")[0]]]


def test_positions_are_named_with_their_tokens(llama: Path) -> None:
    """The tiny tokenizer has a token for each character, and its template ends in "a "."""
    facts = of(llama).facts
    assert (facts["post_instruction:1"], facts["post_instruction:2"], facts["last"]) == ("' '", "'a'", "' '")


def test_every_obstacle_is_told_and_not_the_first_alone(llama: Path) -> None:
    (llama / "tokenizer.json").write_text("{")
    (llama / "config.json").write_text(json.dumps({"model_type": "mpt", "n_layers": 3}))
    assert [text.split(":")[0] for text in of(llama).against] == [
        "Model type 'mpt' is not known to the editor, which knows "
        + ", ".join(sorted(FAMILIES))
        + ". Its writers to the residual stream would be a guess; add a file to editing/families/.",
        f"{llama}",
    ]


def test_a_quantised_base_is_told_with_what_works_on_it(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    found = of(llama)
    assert found.facts["precision"] == "quantised: gptq"
    assert any("bin/edit --adapter" in text for text in found.against)


def test_a_tokenizer_of_another_model_is_told(llama: Path) -> None:
    text = (llama / "tokenizer.json").read_text()
    (llama / "tokenizer.json").write_text(text.replace('"a": 69', '"a": 6900'))
    assert any("gives token 6900; the embedding has 101 rows" in line for line in of(llama).against)


def test_a_template_that_prints_the_clock_is_told(llama: Path) -> None:
    (llama / "chat_template.jinja").write_text("{{ strftime_now('%d') }} {{ messages[0]['content'] }} a ")
    assert any("prints today's date" in line for line in of(llama).against)


def test_a_day_makes_such_a_template_usable(llama: Path) -> None:
    (llama / "chat_template.jinja").write_text("{{ strftime_now('%d') }} {{ messages[0]['content'] }} a ")
    assert of(llama, clock="2026-01-31").facts["clock"] == "fixed at 2026-01-31"
