"""Any tensor of another checkpoint in a running engine: transformers on the other checkpoint's folder is the reference."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from editing.checkpoint import open_checkpoint
from editing.projection import Edit, orthonormal_basis
from editing.replacement import replacement_of
from engine.configs.schema import SamplingConfig
from engine.errors import EngineError, SwapFailed
from engine.inference.replica import Replica
from engine.models.variant import Variant
from engine.vllm_compat import worker_here
from tests.edited import Change, changed_copy, write_lora
from tests.greedy import by_transformers
from tests.swapped import tiny_replica
from tests.tiny import save_tiny

pytestmark = pytest.mark.engine
PROMPTS = [[1, 5 + index, 9, 17, 3 + index] for index in range(6)]
GREEDY = SamplingConfig(max_tokens=6)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("llama served tied", id="tied"),
        pytest.param("llama served", id="untied", marks=pytest.mark.slow),
    ],
)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replica, Variant, Path]]:
    sizes = {"attention_bias": True}
    folder = save_tiny(request.param, tmp_path_factory.mktemp("model"), dtype=torch.float32, sizes=sizes)
    with tiny_replica(folder) as found:
        yield found


def variant_of(base: Variant, base_dir: Path, folder: Path) -> Variant:
    replacement = replacement_of(folder, open_checkpoint(base_dir))
    return Variant(folder.name, base.base_hash, base.plan, None, None, replacement, str(folder))


def said(replica: Replica) -> list[list[int]]:
    return [one.token_ids for one in sorted(replica.generate(PROMPTS, GREEDY), key=lambda one: one.index)]


def noised(part: str) -> Change:
    generator = torch.Generator().manual_seed(3)

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(tensor.shape, generator=generator)
        return tensor + 0.5 * tensor.float().std() * noise if part in name else tensor

    return change


PARTS = [
    "q_proj.weight",
    "v_proj.bias",
    "gate_proj",
    "up_proj",
    "layernorm",
    "down_proj",
    "embed_tokens",
    "lm_head",
    "model.norm",
]


@pytest.mark.parametrize("part", [*PARTS, ""])
def test_a_checkpoint_taken_up_says_what_transformers_says_of_its_folder(
    engine: tuple[Replica, Variant, Path], tmp_path: Path, part: str
) -> None:
    replica, base, folder = engine
    other = changed_copy(folder, tmp_path / "other", noised(part))
    variant = variant_of(base, folder, other)
    if not variant.replacement.names:  # type: ignore[union-attr]
        pytest.skip("a tied model has no such tensor")
    replica.swap(variant)
    assert said(replica) == by_transformers(other, PROMPTS, 6)


def test_the_base_is_the_base_again_after_a_checkpoint(engine: tuple[Replica, Variant, Path], tmp_path: Path) -> None:
    replica, base, folder = engine
    replica.swap(base)
    before = said(replica)
    replica.swap(variant_of(base, folder, changed_copy(folder, tmp_path / "other", noised(""))))
    changed = said(replica)
    replica.swap(base)
    assert (said(replica), changed == before) == (before, False)


def test_an_edit_after_a_checkpoint_is_that_of_the_base(engine: tuple[Replica, Variant, Path], tmp_path: Path) -> None:
    replica, base, folder = engine
    width = open_checkpoint(folder).hidden_size
    basis_HK = orthonormal_basis(torch.randn(1, width, generator=torch.Generator().manual_seed(5)))
    edit = Variant("k1", base.base_hash, base.plan, Edit(basis_HK, 1.0))
    replica.swap(edit)
    expected = said(replica)
    replica.swap(variant_of(base, folder, changed_copy(folder, tmp_path / "other", noised("q_proj"))))
    replica.swap(edit)
    assert said(replica) == expected


def test_a_lora_of_any_projection_says_what_its_merged_model_says(engine: tuple[Replica, Variant, Path], tmp_path: Path) -> None:
    replica, base, folder = engine
    generator = torch.Generator().manual_seed(4)
    factors = {}
    for module in ("model.layers.0.self_attn.k_proj", "model.layers.2.mlp.up_proj"):
        rows, width = open_checkpoint(folder).tensors[f"{module}.weight"].shape
        factors[module] = (torch.randn(2, width, generator=generator), torch.randn(rows, 2, generator=generator))
    adapter = write_lora(tmp_path / "lora", folder, factors, 2, 4.0)

    def merged(name: str, tensor: torch.Tensor) -> torch.Tensor:
        a, b = factors.get(name.removesuffix(".weight"), (None, None))
        return tensor if a is None or b is None else tensor + 2.0 * b @ a

    replica.swap(variant_of(base, folder, adapter))
    assert said(replica) == by_transformers(changed_copy(folder, tmp_path / "merged", merged), PROMPTS, 6)


def test_a_place_that_was_not_loaded_is_named(
    engine: tuple[Replica, Variant, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, base, folder = engine
    variant = variant_of(base, folder, changed_copy(folder, tmp_path / "other", noised("up_proj")))
    replica.swap(base)
    replica.swap(variant)
    replica.swap(base)
    places = worker_here(replica.llm).exchange.places("model.layers.1.mlp.up_proj.weight")
    with monkeypatch.context() as patch:
        patch.setattr(places[0], "load", lambda read: None)
        with pytest.raises(SwapFailed, match=r"layers\.1\.mlp\.gate_up_proj"):
            replica.swap(variant)
    with pytest.raises(EngineError, match="No hot swap has succeeded"):
        said(replica)
    replica.swap(base)
