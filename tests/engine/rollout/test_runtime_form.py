"""bin/rollout with edit.form = runtime: rows of the folded checkpoint's tokens, which say their form; no weight changes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from editing.plan import Scope
from engine import config_for
from engine.checkpoints.export import export
from engine.configs.schema import EditConfig, RunConfig
from engine.environment import set_environment
from engine.errors import EngineError
from engine.evaluate.tasks import Host, Task
from engine.models.variant import Variant
from engine.rollout.stages import answer, load_variant
from engine.runs.session import Session
from tests.steered import of_transformers
from tests.tiny import save_tiny, save_tokenizer

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A tiny float32 model whose window holds its prompts; pairs and requests are harmless."""
    set_environment()
    folder = tmp_path_factory.mktemp("runtime")
    sizes = {"max_position_embeddings": 256, "vocab_size": 128}
    save_tokenizer(save_tiny("llama served", folder / "model", dtype=torch.float32, sizes=sizes))
    (folder / "pairs.json").write_text(json.dumps([[f"Is {number} on?", f"Name {number}."] for number in range(8)]))
    for name in ("requests", "answerable"):
        (folder / f"{name}.json").write_text(json.dumps([f"{name} {number}?" for number in range(3)]))
    files = {name: folder / f"{name}.json" for name in ("requests", "answerable")}
    overrides = {
        **{"model.dtype": "float32", "edit.form": "runtime", "edit.alpha": 0.8},
        **{"sampling.max_tokens": 6, "vllm.kv_cache_memory_bytes": 2**26},
    }
    return config_for(folder / "model", folder / "pairs.json", layers=[1], **files, overrides=overrides)


@dataclass(frozen=True)
class Made:
    """What one engine made: rows by form, and three variants' responses, each by itself and as one queue."""

    rows: dict[str, list[Any]]
    expected: dict[str, dict[str, list[int]]]
    alone: list[list[list[int]]]
    together: list[list[list[int]]]


@pytest.fixture(scope="module")
def made(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Made:
    from engine.rollout.directions import ensure_directions
    from engine.runs.files import DIRECTIONS
    from engine.runs.run_dir import open_run_dir

    folder = tmp_path_factory.mktemp("made")
    with Session(config) as session:
        run_dir = open_run_dir(folder / "run", session.identity)
        ensure_directions(session, run_dir)
        variant = load_variant(session, run_dir.file(DIRECTIONS))
        requests = session.requests
        rows = {form: list(answer(session, one, requests)) for form, one in (("base", session.base), ("runtime", variant))}
        export(session, variant, folder / "folded")
        prompts = session.render(requests, "test requests")
        tasks, host = tasks_of(session, variant, prompts), Host(session.replica())
        alone = [[one.token_ids for one in host.do(task).generations] for task in tasks]
        together = [[one.token_ids for one in result.generations] for result in host.do_together(tasks)]
    expected = {}
    for form, path in (("base", config.model.path), ("runtime", folder / "folded")):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
        said = of_transformers(model, prompts)
        expected[form] = {one.prompt_id: own.token_ids for one, own in zip(requests, said, strict=True)}
    return Made(rows, expected, alone, together)


def tasks_of(session: Session, variant: Variant, prompts: list[list[int]]) -> list[Task]:
    """The base, the variant and a half of it, each with other prompts."""
    assert variant.edit is not None
    half = replace(variant, edit=replace(variant.edit, alpha=0.4))
    parts = [(session.base, prompts), (variant, prompts[1:]), (half, prompts[:2])]
    return [
        Task(one, one.hash, tuple(map(str, range(len(own)))), tuple(map(tuple, own)), session.config.sampling)
        for one, own in parts
    ]


@pytest.mark.parametrize("form", ["base", "runtime"])
def test_its_rows_say_their_form(form: str, made: Made) -> None:
    assert {row["form"] for row in made.rows[form]} == {form}


@pytest.mark.parametrize("form", ["base", "runtime"])
def test_its_rows_are_the_folded_checkpoints(form: str, made: Made) -> None:
    assert {row["prompt_id"]: row["response_token_ids"] for row in made.rows[form]} == made.expected[form]


def test_the_variant_answers_otherwise_than_the_base(made: Made) -> None:
    assert [row["response_token_ids"] for row in made.rows["base"]] != [row["response_token_ids"] for row in made.rows["runtime"]]


def test_variants_in_one_queue_answer_as_each_by_itself(made: Made) -> None:
    assert made.together == made.alone


def test_the_usual_form_leaves_a_runs_identity_as_it_was() -> None:
    assert "form" not in EditConfig().model_dump()
    assert EditConfig(form="runtime").model_dump()["form"] == "runtime"


@pytest.mark.parametrize("command", ["bin/sweep", "bin/bench"])
def test_commands_that_swap_refuse_it(config: RunConfig, command: str) -> None:
    with pytest.raises(EngineError, match=f"{command} takes edit.form = 'in_place'; found 'runtime'"):
        Session(config).check_in_place(command)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"keep_norms": True, "alpha": 1.0}, "keeps the norms"),
        ({"layers": [1]}, "edits some blocks more than others"),
        ({"alpha_by_layer": {1: 0.5}}, "edits some blocks more than others"),
    ],
    ids=["norms", "layers", "alpha by layer"],
)
def test_what_no_intervention_stands_for_is_named(config: RunConfig, edit: dict[str, object], message: str) -> None:
    from editing.checkpoint import open_checkpoint
    from editing.plan import plan_edit
    from editing.projection import Edit
    from engine.inference.runtime_replica import beyond_runtime

    made = EditConfig(**edit)
    scope = Scope(layers=None if made.layers is None else frozenset(made.layers), alpha_by_layer=made.alpha_by_layer)
    plan = plan_edit(open_checkpoint(Path(config.model.path)), scope)
    whole = Edit(torch.eye(plan.writers[0].shape[0], 1, dtype=torch.float64), made.alpha, made.keep_norms)
    variant = Variant("v", "hash", plan, whole)
    assert message in beyond_runtime(variant)
    assert beyond_runtime(replace(variant, edit=None)) == ""
