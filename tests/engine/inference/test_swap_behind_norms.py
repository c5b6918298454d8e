"""The hot swap of a family with norms behind its projections, in a real engine: the bits of the checkpoint writer.

Gemma-2 alone: vLLM runs OLMo-2 through transformers' own class, which it changes for the rest of the process.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from editing.checkpoint import open_checkpoint
from editing.projection import Edit, orthonormal_basis
from editing.writer import write_edited
from engine.inference.replica import Replica
from engine.models.variant import Variant
from engine.vllm_compat import worker_here
from tests.swapped import tiny_replica
from tests.tiny import save_tiny

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Replica, Variant, Path]]:
    with tiny_replica(save_tiny("gemma2 served", tmp_path_factory.mktemp("model"))) as ready:
        yield ready


def test_the_swap_has_the_bits_of_the_checkpoint_writer(served: tuple[Replica, Variant, Path], tmp_path: Path) -> None:
    replica, base, folder = served
    checkpoint = open_checkpoint(folder)
    basis_HK = orthonormal_basis(torch.randn(2, checkpoint.hidden_size, generator=torch.Generator().manual_seed(2)))
    variant = Variant("k2", base.base_hash, base.plan, Edit(basis_HK, 0.7))
    write_edited(checkpoint, base.plan, variant.edit, tmp_path / "out", record={}, card=lambda proofs: "")
    written = load_file(tmp_path / "out" / "model.safetensors")
    replica.swap(base)
    assert replica.swap(variant) < 0.02
    hotswap = worker_here(replica.llm).hotswap
    edits = hotswap.edits(basis_HK, variant.alphas)
    assert len(hotswap.sites) == len(variant.alphas) > 0
    for site in hotswap.sites:
        assert torch.equal(hotswap.weight(site, edits), written[site.name]), site.name
    assert replica.swap(base) < 0.02
