"""A real engine whose requests carry interventions: equal to hooks, to the folded checkpoint and to itself one at a time.

Passes are short (32 tokens, 4 requests), so prompts are computed in parts and variants outnumber the slots.
"""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.errors import EngineError
from engine.inference.steerable import SteerableReplica
from engine.runtime.requests import Asked
from engine.vllm_compat import worker_here
from tests.steered import (
    Said,
    of_engine,
    of_transformers,
    stream_changed,
    tiny_steerable,
    unit_rows,
    with_added,
    without,
)
from tests.tiny import BLOCKS, HIDDEN, save_tiny

pytestmark = pytest.mark.engine
PROMPTS = [[1, 5, 9, 17, 33, 80, 4], [1, 7, 3, 9], [1, *range(20, 65)]]
LONG = [1, *range(20, 60)]  # more than a block of the prefix cache
Q = unit_rows(HIDDEN, 3)
EVERY_BLOCK = range(BLOCKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama served", tmp_path_factory.mktemp("steered") / "model", dtype=torch.float32)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[SteerableReplica]:
    settings = {"max_num_seqs": 4, "max_num_batched_tokens": 32, "block_size": 32, "enable_prefix_caching": True}
    with tiny_steerable(folder, ("inputs", "writes", "embedding"), **settings) as ready:
        ready.put("q", Q)
        ready.put("v", Q[:1])
        yield ready


@pytest.fixture(scope="module")
def model(folder: Path) -> nn.Module:
    return load(folder)


def load(folder: Path) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def tokens(said: list[Said]) -> list[list[int]]:
    return [one.token_ids for one in said]


def logprobs(said: list[Said]) -> list[float]:
    return [one.mean_logprob for one in said]


def assert_same(found: list[Said], expected: list[Said]) -> None:
    print("largest difference", max(abs(a - b) for a, b in zip(logprobs(found), logprobs(expected), strict=True)))
    assert tokens(found) == tokens(expected)
    assert logprobs(found) == pytest.approx(logprobs(expected), abs=2e-5)


# --- what it stands for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("variant", ["q", "v"])
def test_the_stream_entering_each_block_is_that_of_hooks(
    engine: SteerableReplica, model: nn.Module, variant: str, alpha: float
) -> None:
    with stream_changed(model, EVERY_BLOCK, without(engine.rows[variant], alpha)):
        expected = of_transformers(model, PROMPTS)
    assert_same(of_engine(engine, PROMPTS, [Asked(variant, alpha)] * len(PROMPTS)), expected)


def test_one_block_is_that_of_hooks(engine: SteerableReplica, model: nn.Module) -> None:
    with stream_changed(model, [2], without(Q, 1.0)):
        expected = of_transformers(model, PROMPTS)
    assert_same(of_engine(engine, PROMPTS, [Asked("q", 1.0, site="block:2")] * len(PROMPTS)), expected)


def test_an_addition_is_that_of_hooks(engine: SteerableReplica, model: nn.Module) -> None:
    with stream_changed(model, [1], with_added(Q[:1], 2.5)):
        expected = of_transformers(model, PROMPTS)
    assert_same(of_engine(engine, PROMPTS, [Asked("v", add=2.5, site="block:1")] * len(PROMPTS)), expected)


@pytest.mark.parametrize("positions", ["prompt", "response", "last"])
def test_positions_are_those_of_hooks(engine: SteerableReplica, model: nn.Module, positions: str) -> None:
    expected = []
    for prompt in PROMPTS:
        length = len(prompt)
        named = {"prompt": range(length), "response": range(length, 99), "last": range(length - 1, length)}[positions]
        with stream_changed(model, EVERY_BLOCK, without(Q, 1.0), named.__contains__):
            expected += of_transformers(model, [prompt])
    assert_same(of_engine(engine, PROMPTS, [Asked("q", 1.0, positions=positions)] * len(PROMPTS)), expected)


@pytest.mark.parametrize("embeddings", [False, True], ids=["writes", "writes and embedding"])
def test_writes_are_the_folded_checkpoint_s(engine: SteerableReplica, folder: Path, tmp_path: Path, *, embeddings: bool) -> None:
    checkpoint = open_checkpoint(folder)
    edit = Edit(orthonormal_basis(Q), 0.8)
    plan = plan_edit(checkpoint, Scope(embeddings=embeddings))
    write_edited(checkpoint, plan, edit, tmp_path / "out", record={}, card=lambda proofs: "card")
    expected = of_transformers(load(tmp_path / "out"), PROMPTS)
    site = "writes+embedding" if embeddings else "writes"
    assert_same(of_engine(engine, PROMPTS, [Asked("q", 0.8, site=site)] * len(PROMPTS)), expected)


def test_nothing_of_the_subspace_is_left_behind_the_site(engine: SteerableReplica) -> None:
    """Read in the engine where the first norm of each block reads the stream."""
    cosines: list[float] = []

    def look(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        stream_TH = args[0] if len(args) < 2 or args[1] is None else args[0] + args[1]
        cosines.append(float(((stream_TH @ Q.T).norm(dim=-1) / stream_TH.norm(dim=-1)).max()))

    blocks = worker_here(engine.llm).get_model().model.layers
    handles = [block.input_layernorm.register_forward_pre_hook(look) for block in blocks]
    of_engine(engine, PROMPTS, [None] * len(PROMPTS))
    base, _ = max(cosines), cosines.clear()
    of_engine(engine, PROMPTS, [Asked("q", 1.0)] * len(PROMPTS))
    for handle in handles:
        handle.remove()
    print(f"largest cosine {max(cosines):.1e}, of the base {base:.2f}")
    assert base > 0.1
    assert max(cosines) < 1e-6


# --- batches ------------------------------------------------------------------------------------------------------------


def test_alpha_zero_is_the_base_to_the_bit(engine: SteerableReplica) -> None:
    of_engine(engine, PROMPTS, [Asked("q", 1.0)] * len(PROMPTS))
    assert of_engine(engine, PROMPTS, [Asked("q", 0.0)] * len(PROMPTS)) == of_engine(engine, PROMPTS, [None] * len(PROMPTS))


def test_a_mixed_batch_is_each_variant_by_itself(engine: SteerableReplica) -> None:
    settings = [None, Asked("q", 1.0), Asked("q", 0.5), Asked("v", 1.0), Asked("v", add=2.0, site="block:1")]
    settings += [Asked("q", 1.0, site="writes"), Asked("q", 1.0, positions="response")]
    cases = list(itertools.product(PROMPTS, settings))
    random.Random(11).shuffle(cases)
    alone = [of_engine(engine, [prompt], [asked])[0] for prompt, asked in cases]
    mixed = of_engine(engine, [prompt for prompt, _ in cases], [asked for _, asked in cases])
    assert_same(mixed, alone)


def test_a_cached_prompt_is_not_read_under_another_variant(engine: SteerableReplica) -> None:
    settings = [None, Asked("q", 1.0), Asked("q", 0.5), Asked("q", 1.0, positions="prompt")]
    fresh = []
    for asked in settings:
        engine.llm.reset_prefix_cache()
        fresh += of_engine(engine, [LONG], [asked])
    engine.llm.reset_prefix_cache()
    cached = [of_engine(engine, [LONG], [asked])[0] for asked in (*settings, *settings)]
    assert_same(cached, fresh + fresh)
    assert len({round(value, 4) for value in logprobs(fresh)}) == len(settings)


def test_without_its_salt_it_would_be(engine: SteerableReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above rests on: keys and values of the base do reach a variant that has the same key."""
    engine.llm.reset_prefix_cache()
    fresh = of_engine(engine, [LONG], [Asked("q", 1.0)])
    engine.llm.reset_prefix_cache()
    monkeypatch.setattr(Asked, "cache_salt", lambda self: None)
    of_engine(engine, [LONG], [None])
    assert logprobs(of_engine(engine, [LONG], [Asked("q", 1.0)])) != pytest.approx(logprobs(fresh), abs=1e-4)
    engine.llm.reset_prefix_cache()


# --- what bad input gets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked("other", 1.0), "No variant 'other' in this engine; it has q, v"),
        (Asked("q", float("nan")), "alpha takes a finite number; found nan"),
        (Asked("q", 1.0, site="block:9"), "found 'block:9'"),
    ],
    ids=["variant", "strength", "site"],
)
def test_a_request_that_cannot_be_answered_is_refused_and_the_engine_goes_on(
    engine: SteerableReplica, asked: Asked, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        of_engine(engine, PROMPTS[:1], [asked])
    assert of_engine(engine, PROMPTS[:1], [None])[0].token_ids


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("wide", torch.eye(HIDDEN + 1)[:1], f"this model's hidden size is {HIDDEN}"),
        ("many", torch.eye(HIDDEN)[:9], "has 9 directions; this engine was opened for 8"),
        ("q", Q[:2], "stands for other rows"),
    ],
    ids=["width", "rank", "name"],
)
def test_a_variant_that_does_not_fit_is_refused(engine: SteerableReplica, name: str, rows: Tensor, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        engine.put(name, rows)


def test_rows_that_are_not_orthonormal_are_added_and_not_taken_out(engine: SteerableReplica) -> None:
    engine.put("steering", 3 * Q[:1] + Q[1:2])
    assert of_engine(engine, PROMPTS[:1], [Asked("steering", add=1.0)])[0].token_ids
    with pytest.raises(EngineError, match="not orthonormal"):
        engine.check(Asked("steering", 1.0))
