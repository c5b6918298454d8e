"""What a study is opened with: which pairs make directions, which are held out, and what is written where."""

import json
from pathlib import Path

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.plan import plan_edit
from engine.configs.load import load_config
from engine.errors import EngineError
from engine.evaluate.candidates import SINGLE
from engine.runs.files import rounded
from engine.study.effect import make_candidate
from engine.study.opening import open_study
from engine.study.panel import write_modules
from extraction.errors import ExtractionError
from tests.tiny import save_tiny, tiny_model

pytestmark = pytest.mark.usefixtures("smollm2_dir")


def pairs_file(tmp_path: Path, count: int, answered: str = "What is a good place for {}?") -> str:
    pairs = [[f"Where is my key number {number}?", answered.format(number)] for number in range(count)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    return str(tmp_path / "pairs.json")


def test_own_pairs_without_a_selection_are_held_out_by_the_quarter_and_the_run_keeps_all(tmp_path: Path) -> None:
    config = load_config("smollm2_135m_k1", {"data.train_pairs": pairs_file(tmp_path, 40)})
    study = open_study(config, tmp_path / "run")
    assert (len(study.session.pairs), len(study.whole.pairs), len(study.held_out)) == (30, 40, 10)
    made_of = {pair.declined for pair in study.session.pairs}
    assert not made_of & {pair.declined for pair in study.held_out}
    assert len(study.sides[0]) == len(study.sides[1]) == 10


def test_what_a_study_depends_on_decides_its_folder_and_what_it_remembers(tmp_path: Path) -> None:
    studies = {
        name: open_study(load_config("smollm2_135m_k1", settings), tmp_path / "run")
        for name, settings in (("plain", {}), ("longer", {"sampling.max_tokens": 128}), ("seed", {"sweep.seed": 1}))
    }
    assert len({study.folder("effect").path for study in studies.values()}) == 3
    first = studies["plain"].run("geometry", {"positions": ["last"]}, lambda: {"value": 1.23456789, "missing": float("nan")})
    assert (first["value"], first["missing"]) == (1.23457, None)
    again = studies["plain"].run("geometry", {"positions": ["last"]}, lambda: pytest.fail("made again"))  # type: ignore[arg-type, return-value]
    assert again == first and studies["plain"].earlier_options("geometry") == {"positions": ["last"]}
    assert studies["seed"].earlier_options("geometry") == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.num_pairs": 3}, "A study takes 4 pairs or more"),
        ({"directions.layers": [40]}, "Layer 40 is out of range"),
        ({"data.selection_pairs": "{own}", "data.train_pairs": "{own}"}, "are also held-out prompts"),
        ({"data.test_requests": "{tests}", "data.train_pairs": "{own}"}, "are also test prompts"),
    ],
)
def test_what_a_study_cannot_use_is_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    (tmp_path / "tests.json").write_text(json.dumps(["where is  MY key number 3?", "Where is my hat?"]))
    names = {"{own}": pairs_file(tmp_path, 20), "{tests}": str(tmp_path / "tests.json")}
    chosen = {key: names.get(value, value) if isinstance(value, str) else value for key, value in settings.items()}
    with pytest.raises(EngineError, match=message):
        open_study(load_config("smollm2_135m_k1", chosen), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_held_out_prompt_longer_than_the_window_is_named(tmp_path: Path) -> None:
    (tmp_path / "held.json").write_text(json.dumps([["Where is my key?", "What is a key?"], ["word " * 9000, "Why?"]]))
    config = load_config("smollm2_135m_k1", {"data.selection_pairs": str(tmp_path / "held.json")})
    with pytest.raises(ExtractionError, match="declined held-out prompts, prompt 2 has 9"):
        open_study(config, tmp_path / "run")


def test_a_run_directory_of_other_directions_is_refused_by_the_keys_that_differ(tmp_path: Path) -> None:
    open_study(load_config("smollm2_135m_k1", {}), tmp_path / "run")
    for settings, key in (({"directions.estimator": "pca"}, "directions.estimator"), ({"data.num_pairs": 20}, "num_pairs")):
        with pytest.raises(EngineError, match=rf"holds or awaits other directions:\n.*{key}"):
            open_study(load_config("smollm2_135m_k1", settings), tmp_path / "run")
    other_layers = load_config("smollm2_135m_k1", {"directions.layers": [20], "sampling.max_tokens": 8})
    assert open_study(other_layers, tmp_path / "run").session.layers() == [20]


def test_fewer_dimensions_than_layers_are_the_configurations(tmp_path: Path) -> None:
    config = load_config("smollm2_135m_k5", {"directions.k": 2})
    session = open_study(config, tmp_path / "run").session
    units = torch.nn.functional.normalize(torch.randn(5, 576, dtype=torch.float64), dim=-1)
    assert make_candidate(session, SINGLE, "x", units, config.directions.k).k == 2


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", {"model.layers.0.self_attn.o_proj", "model.layers.2.mlp.down_proj"}),
        ("gemma2", {"model.layers.0.post_attention_layernorm", "model.layers.2.post_feedforward_layernorm"}),
        ("gpt2", {"transformer.h.0.attn.c_proj", "transformer.h.2.mlp.c_proj"}),
    ],
)
def test_writes_are_hooked_where_they_enter_the_stream(family: str, expected: set[str], tmp_path: Path) -> None:
    class Planned:
        plan = plan_edit(open_checkpoint(save_tiny(family, tmp_path / "model")))

    found = write_modules(Planned(), tiny_model(family))  # type: ignore[arg-type]
    assert expected <= set(found) and len(found) == 6


def test_fused_experts_have_no_module_to_hook(tmp_path: Path) -> None:
    class Planned:
        plan = plan_edit(open_checkpoint(save_tiny("mixtral", tmp_path / "model")))

    with pytest.raises(EngineError, match="is no module of its own in transformers"):
        write_modules(Planned(), tiny_model("mixtral"))  # type: ignore[arg-type]


def test_numbers_for_json_are_short_and_finite() -> None:
    assert rounded({"a": [1.23456789e-9, float("inf")], 3: (2, "x", None, True)}) == {
        "a": [1.23457e-9, None],
        "3": [2, "x", None, True],
    }
