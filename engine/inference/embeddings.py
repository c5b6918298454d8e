"""Token and position embeddings in the engine, and the output head where it is the same tensor."""
# N = rows that are looked up, B = a block of them, V = this worker's rows, H = hidden size, P = probe vectors of the head

from typing import Any

import torch
from torch import Tensor

from editing.plan import PlannedTensor
from editing.projection import Removal
from engine.inference.probing import COPIED
from engine.inference.sites import NUM_PROBES, Site, random_vectors
from engine.vllm_compat.layers import exchange_rows, layer_output, looked_up, repack_head, rows_of

NUM_ROWS = 64
BLOCK = 4096  # rows in float32 at a time: a vocabulary is as large as a dozen projections


class EmbeddingSite(Site):
    """An embedding of which each rank holds rows: 64 of them are looked up as generation looks them up, and copied exactly."""

    def __init__(self, tensor: PlannedTensor, module: Any, whole: Tensor, device: torch.device) -> None:
        base = whole[rows_of(module)].to(device)
        super().__init__(tensor, module, base, module.weight.dtype)
        generator = torch.Generator().manual_seed(sum(tensor.name.encode()))
        self.rows_N = torch.randperm(len(base), generator=generator)[:NUM_ROWS].to(device)
        self.base_output = self.expected(base)

    @property
    def tolerances(self) -> tuple[float, float]:
        return COPIED, super().tolerances[1]

    def load(self, weight: Tensor) -> None:
        exchange_rows(self.module, weight.to(self.dtype))

    def expected(self, weight: Tensor) -> list[Tensor]:
        return [weight[self.rows_N].to(self.dtype).to(torch.float64)]

    def observed(self) -> list[Tensor]:
        with torch.inference_mode():
            return [looked_up(self.module, self.rows_N).to(torch.float64)]


class HeadSite(Site):
    """The output head that is an embedding's tensor: what the embedding's site loaded, it packs and multiplies with."""

    def __init__(self, embedding: EmbeddingSite, head: Any, *, repacks: bool) -> None:
        super().__init__(embedding.tensor, head, embedding.base, embedding.dtype)
        self.places = [f"{self.name} as the output head"]
        self.repacks = repacks
        vectors_PH = random_vectors(self.name, NUM_PROBES, self.base.shape[1], self.dtype)
        self.probe_PH = vectors_PH.to(self.base.device)
        self.base_output = self.expected(self.base)

    def load(self, weight: Tensor) -> None:
        repack_head(self.module, repacks=self.repacks)

    def ideal(self, edit: Removal | None) -> list[Tensor | None]:
        """W' x = W0 (x - alpha B A^T x), for W' = W0 - alpha W0 B A^T: the edit of the rows, moved to what they multiply."""
        if edit is None:
            return list(self.base_output)
        if edit.keep_norms:
            return [None]
        vectors_PH = self.probe_PH.to(torch.float64)
        moved_PH = vectors_PH - edit.alpha * (vectors_PH @ edit.write_HK) @ edit.read_HK.T
        return [self._logits(moved_PH.float(), self.base)]

    def expected(self, weight: Tensor) -> list[Tensor]:
        return [self._logits(self.probe_PH.float(), weight)]

    def observed(self) -> list[Tensor]:
        with torch.inference_mode():
            return [layer_output(self.module, self.probe_PH)[:, : len(self.base)].to(torch.float64)]

    def _logits(self, vectors_PH: Tensor, weight_VH: Tensor) -> Tensor:
        blocks = [vectors_PH @ block_BH.to(self.dtype).float().T for block_BH in weight_VH.split(BLOCK)]
        return torch.cat(blocks, dim=1).to(torch.float64)
