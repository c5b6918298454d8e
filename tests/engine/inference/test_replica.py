"""The hot swap in a real vLLM engine on SmolLM2-135M-Instruct: exact, reversible, and caught where it did not take."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from editing.adapter import write_adapter
from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from editing.projection import Edit, orthonormal_basis, project_out
from editing.writer import write_edited
from engine.configs.load import load_config
from engine.environment import has_gpu, set_environment
from engine.errors import EngineError, SwapFailed
from engine.inference.arguments import engine_arguments, share_beside_swaps
from engine.inference.hotswap import Edits, HotSwap
from engine.inference.replica import Replica
from engine.models.locate import checkpoint_hash
from engine.models.variant import Variant
from engine.runs.session import Session
from engine.vllm_compat import worker_here
from extraction.prompts import load_prompts
from extraction.rendering import ChatRenderer

pytestmark = pytest.mark.engine
CONFIG = Session(load_config("smollm2_135m_k1", {"sampling.max_tokens": 24, "data.num_requests": 16})).config

GENERATE = """
import json, sys
from engine.environment import set_environment
set_environment()
from vllm import LLM, SamplingParams
arguments, prompts = json.loads(sys.stdin.read())
llm = LLM(**arguments)
sampling = SamplingParams(temperature=0, max_tokens=24)
outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
print("TOKENS", json.dumps([list(output.outputs[0].token_ids) for output in outputs]))
"""


@pytest.fixture(scope="module")
def prompts(smollm2_dir: Path) -> list[list[int]]:
    renderer = ChatRenderer(AutoTokenizer.from_pretrained(smollm2_dir))
    return [renderer.render(prompt.text) for prompt in load_prompts("embedded:test_requests")[:16]]


@pytest.fixture(scope="module")
def base(smollm2_dir: Path) -> Variant:
    checkpoint = open_checkpoint(smollm2_dir)
    return Variant("base", checkpoint_hash(checkpoint), plan_edit(checkpoint), None)


def variant_of(base: Variant, k: int, alpha: float = 1.0) -> Variant:
    """A random subspace: it changes the model's text for certain."""
    basis = orthonormal_basis(torch.randn(k, 576, generator=torch.Generator().manual_seed(k)))
    return Variant(f"k{k}", base.base_hash, base.plan, Edit(basis, alpha))


@pytest.fixture(scope="module")
def replica(smollm2_dir: Path, base: Variant) -> Iterator[Replica]:
    set_environment()
    engine = Replica(engine_arguments(CONFIG, smollm2_dir, has_gpu=has_gpu()), base)
    with pytest.raises(EngineError, match="No hot swap has succeeded"):  # the base too is swapped in and probed first
        next(engine.generate([[1]], CONFIG.sampling))
    yield engine
    engine.close()


@pytest.fixture
def hotswap(replica: Replica) -> HotSwap:
    """The swapper inside the in-process worker."""
    return worker_here(replica.llm).hotswap


def tokens(replica: Replica, prompts: list[list[int]]) -> list[list[int]]:
    return [g.token_ids for g in sorted(replica.generate(prompts, CONFIG.sampling), key=lambda g: g.index)]


@pytest.mark.slow
def test_a_swapped_engine_writes_what_an_engine_on_the_folded_checkpoint_writes(
    replica: Replica, base: Variant, prompts: list[list[int]], smollm2_dir: Path, tmp_path: Path
) -> None:
    variant = variant_of(base, 5)
    write_edited(open_checkpoint(smollm2_dir), base.plan, variant.edit, tmp_path / "folded", record={}, card=lambda proofs: "")
    arguments = engine_arguments(CONFIG, tmp_path / "folded", has_gpu=has_gpu()) | {"worker_extension_cls": ""}
    run = subprocess.run(
        [sys.executable, "-c", GENERATE], input=json.dumps([arguments, prompts]), capture_output=True, text=True, check=True
    )
    folded = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("TOKENS")).removeprefix("TOKENS "))
    replica.swap(base)
    before = tokens(replica, prompts)
    replica.swap(variant)
    swapped = tokens(replica, prompts)
    print(f"{sum(a == b for a, b in zip(swapped, folded, strict=True))} of {len(prompts)} greedy texts are equal")
    assert swapped == folded
    assert sum(a != b for a, b in zip(before, folded, strict=True)) > len(prompts) // 2


WITH_ADAPTER = """
import json, sys
from engine.environment import set_environment
set_environment()
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
arguments, prompts, adapter = json.loads(sys.stdin.read())
llm = LLM(**arguments, enable_lora=True, max_lora_rank=8, lora_target_modules=["o_proj", "down_proj"])
sampling = SamplingParams(temperature=0, max_tokens=24)
prompts = [{"prompt_token_ids": ids} for ids in prompts]
outputs = llm.generate(prompts, sampling, use_tqdm=False, lora_request=LoRARequest("k5", 1, adapter))
print("TOKENS", json.dumps([list(output.outputs[0].token_ids) for output in outputs]))
"""


@pytest.mark.slow
def test_vllm_serves_the_adapter_form(
    replica: Replica, base: Variant, prompts: list[list[int]], smollm2_dir: Path, tmp_path: Path
) -> None:
    variant = variant_of(base, 5)
    checkpoint = open_checkpoint(smollm2_dir)
    write_adapter(checkpoint, base.plan, variant.edit, tmp_path / "k5", base_model=str(smollm2_dir), record={}, card="")
    arguments = engine_arguments(CONFIG, smollm2_dir, has_gpu=has_gpu()) | {"worker_extension_cls": ""}
    sent = json.dumps([arguments, prompts, str(tmp_path / "k5")])
    run = subprocess.run([sys.executable, "-c", WITH_ADAPTER], input=sent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    adapted = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("TOKENS")).removeprefix("TOKENS "))
    replica.swap(base)
    before = tokens(replica, prompts)
    replica.swap(variant)
    starts = [(a[:4], b[:4], c[:4]) for a, b, c in zip(adapted, tokens(replica, prompts), before, strict=True)]
    same, as_base = sum(a == b for a, b, _ in starts), sum(a == c for a, _, c in starts)
    print(f"first four tokens: {same} of {len(starts)} as the folded weights', {as_base} as the base's")
    assert same > len(starts) // 2 > as_base


def test_base_variant_base_is_exact(replica: Replica, base: Variant, prompts: list[list[int]]) -> None:
    replica.swap(base)
    before = tokens(replica, prompts)
    for variant in (variant_of(base, 1), variant_of(base, 3), base):
        error = replica.swap(variant)
        print(f"{variant.name}: largest probe error {error:.2%}")
    assert tokens(replica, prompts) == before


def load_layer(hotswap: HotSwap, index: int, edit: Edit | None) -> None:
    site = hotswap.sites[index]
    weight = hotswap.base_weight(site)
    hotswap._load(site, weight if edit is None else project_out(weight, edit))


def edits_of(hotswap: HotSwap, variant: Variant) -> Edits:
    return hotswap.edits(variant.edit.basis_HK, variant.alphas)


@pytest.mark.parametrize("wrong", ["nothing swapped", "old variant stays", "one layer missed", "wrong alpha", "layers exchanged"])
def test_a_swap_that_did_not_take_is_caught(replica: Replica, base: Variant, hotswap: HotSwap, wrong: str) -> None:
    new, old = variant_of(base, 1), variant_of(base, 2)
    replica.swap(old if wrong == "old variant stays" else base)
    if wrong in ("one layer missed", "wrong alpha", "layers exchanged"):
        replica.swap(new)
        hotswap.applied = {}  # the state before this swap
    if wrong == "one layer missed":
        load_layer(hotswap, 37, None)
    elif wrong == "wrong alpha":
        for index in range(len(hotswap.sites)):
            load_layer(hotswap, index, Edit(new.edit.basis_HK, 0.5))
    elif wrong == "layers exchanged":
        hotswap._load(hotswap.sites[4], project_out(hotswap.base_weight(hotswap.sites[6]), new.edit))
    with pytest.raises(SwapFailed) as caught:
        hotswap.probe(edits_of(hotswap, new))
    print(caught.value)
    expected = {"one layer missed": hotswap.sites[37].name, "layers exchanged": hotswap.sites[4].name}
    assert expected.get(wrong, hotswap.sites[0].name) in str(caught.value)
    replica.current = None
    assert replica.swap(base) < 0.02


@pytest.mark.parametrize("scope", [Scope(layers=frozenset({3, 20})), Scope(alpha_by_layer={5: 0.5})])
def test_scopes_and_kept_norms_are_swapped_too(replica: Replica, base: Variant, smollm2_dir: Path, scope: Scope) -> None:
    plan = plan_edit(open_checkpoint(smollm2_dir), scope)
    variant = Variant("scoped", base.base_hash, plan, replace(variant_of(base, 2).edit, keep_norms=not scope.alpha_by_layer))
    replica.swap(base)
    assert replica.swap(variant) < 0.02
    assert replica.swap(base) < 0.02


def test_what_cannot_be_swapped_is_refused_before_anything_changes(replica: Replica, base: Variant, smollm2_dir: Path) -> None:
    plan = plan_edit(open_checkpoint(smollm2_dir), Scope(embeddings=True))
    replica.swap(base)
    with pytest.raises(EngineError, match=r"opened without edit.embeddings: they are not swapped in it"):
        replica.swap(Variant("embeddings", base.base_hash, plan, variant_of(base, 1).edit))
    assert replica.current is base


def test_nothing_is_generated_after_a_failed_swap(
    replica: Replica, base: Variant, hotswap: HotSwap, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.swap(base)
    with monkeypatch.context() as patch:
        patch.setattr(hotswap, "_load", lambda site, weight: None)
        with pytest.raises(SwapFailed, match=r"0% of the expected change|off by"):
            replica.swap(variant_of(base, 1))
    with pytest.raises(EngineError, match="No hot swap has succeeded"):
        next(replica.generate(prompts, CONFIG.sampling))
    replica.swap(base)
    assert len(tokens(replica, prompts)) == len(prompts)


@pytest.mark.slow
def test_an_abandoned_generation_leaves_no_requests_behind(replica: Replica, base: Variant, prompts: list[list[int]]) -> None:
    replica.swap(base)
    expected = tokens(replica, prompts)
    running = replica.generate(prompts, CONFIG.sampling)
    next(running)
    running.close()
    assert tokens(replica, prompts) == expected


def test_a_variant_of_another_base_is_refused(replica: Replica, base: Variant) -> None:
    with pytest.raises(EngineError, match="another base"):
        replica.swap(Variant("other", "f" * 64, base.plan, None))


def test_response_likelihoods_equal_transformers(
    replica: Replica, base: Variant, prompts: list[list[int]], smollm2_dir: Path
) -> None:
    replica.swap(base)
    responses = tokens(replica, prompts[:4])
    found = replica.mean_logprobs([*prompts[:4], prompts[4]], [*responses, []])
    told = sorted(replica.generate(prompts[:4], CONFIG.sampling, logprobs=True), key=lambda one: one.index)
    model = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32)
    expected = []
    for prompt, response in zip(prompts, responses, strict=False):
        with torch.no_grad():
            logprobs = model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        steps = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        expected.append(sum(float(logprobs[s, t]) for s, t in zip(steps, response, strict=True)) / len(response))
    difference = max(abs(a - b) for a, b in zip(found[:4], expected, strict=True))
    print(f"largest difference to float32 transformers: {difference:.4f} nats a token")
    assert found[4] is None
    assert difference < 0.03
    assert [one.mean_logprob for one in told] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("asked", [None, 0.5])
def test_what_a_swap_keeps_on_a_gpu_is_taken_off_vllms_share(smollm2_dir: Path, asked: float | None) -> None:
    """SmolLM2's o_proj and down_proj, 30 x (576 x 576 + 576 x 1536) values of 2 bytes, as a share of a 2 GB device."""
    from vllm.engine.arg_utils import EngineArgs

    kept, total = 2 * 30 * (576 * 576 + 576 * 1536), 2 * 10**9
    config = CONFIG if asked is None else CONFIG.model_copy(update={"vllm": {"gpu_memory_utilization": asked}})
    share = share_beside_swaps(config, smollm2_dir, total)["gpu_memory_utilization"]
    print(f"share {share}, of a device of {total / 1e9:.1f} GB")
    assert share == pytest.approx((asked or EngineArgs.gpu_memory_utilization) - kept / total, abs=1e-3)
