"""Takes any tensor of another checkpoint up in a loaded vLLM model: linear layers (fused ones too), norms, biases, embeddings.

Where `engine.inference.hotswap` edits the base's writers, this exchanges whatever differs, and gives the base's values back to
what the last variant had changed. Each place that was written is probed as a hot swap's is.
"""
# P = probe vectors, I = this worker's share of the input size, N = rows, H = the output's width

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from editing.checkpoint import Checkpoint
from editing.plan import Scope, plan_edit
from editing.replacement import Read
from engine.errors import EngineError
from engine.inference.embeddings import EmbeddingSite, HeadSite
from engine.inference.probing import COPIED, PROBE_TOLERANCE, change_figures, judge, relative
from engine.inference.sites import NUM_PROBES, Site, product, random_vectors
from engine.vllm_compat.fused import HEAD, LINEAR, OWN_ENGINE, TABLE, Holder, holder_of, share_of
from engine.vllm_compat.layers import exchange_rows, exchange_weight, head_of, layer_output, repack_head, rows_of

TRANSPOSED = ("gpt2", "gpt_bigcode", "openai-gpt")  # Conv1D: (input, output), and a square one does not tell


class Place(ABC):
    """One parameter of one layer, and the checkpoint's tensors that it is made of."""

    def __init__(self, holder: Holder) -> None:
        self.holder, self.module = holder, holder.module
        self.name = f"{holder.name}.{holder.parameter}"

    @property
    @abstractmethod
    def tolerance(self) -> float:
        """Of the engine's output."""

    @abstractmethod
    def load(self, read: Read) -> None:
        """Put these values into the engine."""

    @abstractmethod
    def expected(self, read: Read) -> Tensor:
        """The probe's output with these values, (N, H) float64."""

    @abstractmethod
    def observed(self) -> Tensor:
        """The engine's output for the probe, (N, H) float64."""


class LinearPlace(Place):
    """A linear layer's weight: random vectors through the layer, without its bias and without ranks' sum."""

    def __init__(self, holder: Holder, device: torch.device, *, repacks: bool) -> None:
        super().__init__(holder)
        self.device, self.repacks, self.dtype = device, repacks, holder.module.params_dtype
        self.probe_PI: Tensor | None = None

    @property
    def tolerance(self) -> float:
        return PROBE_TOLERANCE[self.dtype]

    def weight(self, read: Read) -> Tensor:
        return share_of(self.module, "weight", [read(name) for name in self.holder.parts]).to(self.device, self.dtype)

    def load(self, read: Read) -> None:
        exchange_weight(self.module, self.weight(read), repacks=self.repacks)

    def expected(self, read: Read) -> Tensor:
        weight_HI = self.weight(read)
        return product(self._probe(weight_HI.shape[1]), weight_HI)

    def observed(self) -> Tensor:
        assert self.probe_PI is not None
        with torch.inference_mode():
            return layer_output(self.module, self.probe_PI).to(torch.float64)

    def _probe(self, width: int) -> Tensor:
        if self.probe_PI is None:
            self.probe_PI = random_vectors(self.name, NUM_PROBES, width, self.dtype).to(self.device)
        return self.probe_PI


class CopiedPlace(Place):
    """A norm's gain, or a linear layer's bias, which the layer adds from the parameter: read back exactly."""

    tolerance = COPIED

    def values(self, read: Read) -> Tensor:
        held, parts = getattr(self.module, self.holder.parameter), [read(name) for name in self.holder.parts]
        values = share_of(self.module, "bias", parts) if self.holder.kind == LINEAR else parts[0]
        return values.to(held.device, held.dtype)

    def load(self, read: Read) -> None:
        getattr(self.module, self.holder.parameter).data.copy_(self.values(read))

    def expected(self, read: Read) -> Tensor:
        return self.values(read).to(torch.float64)[None]

    def observed(self) -> Tensor:
        return getattr(self.module, self.holder.parameter).data.to(torch.float64)[None]


class SitePlace(Place):
    """An embedding, or the head that is the same tensor, as a hot swap exchanges and probes it."""

    def __init__(self, holder: Holder, site: Site) -> None:
        super().__init__(holder)
        self.site = site
        self.name = site.places[0]

    @property
    def tolerance(self) -> float:
        return self.site.tolerances[0]

    def load(self, read: Read) -> None:
        self.site.load(self._rows(read))

    def expected(self, read: Read) -> Tensor:
        return self.site.expected(self._rows(read))[0]

    def observed(self) -> Tensor:
        return self.site.observed()[0]

    def _rows(self, read: Read) -> Tensor:
        return read(self.holder.parts[0])[rows_of(self.module)].to(self.site.base.device)


class HeadPlace(LinearPlace):
    """An output head of its own: this rank's rows of it."""

    def __init__(self, holder: Holder, device: torch.device, *, repacks: bool) -> None:
        Place.__init__(self, holder)
        self.device, self.repacks, self.dtype = device, repacks, holder.module.weight.dtype
        self.probe_PI: Tensor | None = None
        self.rows = 0

    def weight(self, read: Read) -> Tensor:
        rows_NH = read(self.holder.parts[0])[rows_of(self.module)].to(self.device, self.dtype)
        self.rows = len(rows_NH)
        return rows_NH

    def load(self, read: Read) -> None:
        exchange_rows(self.module, self.weight(read))
        repack_head(self.module, repacks=self.repacks)

    def observed(self) -> Tensor:
        return super().observed()[:, : self.rows]


class Exchange:
    """Exchanges tensors of `model`, whose base weights are `base`'s; `repacks` as for a hot swap.

    Places are found as they are needed: an engine that takes up no checkpoint keeps nothing for it.
    """

    def __init__(self, model: nn.Module, base: Checkpoint, *, repacks: bool) -> None:
        self.model, self.base, self.repacks = model, base, repacks
        self.device = next(model.parameters()).device
        self.held: dict[str, Place] = {}  # places that do not have the base's values
        self._places: dict[str, list[Place]] = {}  # by the checkpoint's tensor
        self._read: Read = base.read

    def take_up(self, names: Sequence[str], read: Read) -> float:
        """Load these tensors' values, and the base's where the last variant's are; returns the largest probe error.

        Raises SwapFailed, naming the place, where the engine's output is not the variant's, and EngineError, before anything
        is exchanged, for a tensor whose place is not known.
        """
        wanted = {place.name: place for name in names for place in self.places(name)}
        touched = {**self.held, **wanted}
        before = {name: place.expected(self._read) for name, place in touched.items()}
        self.held = touched  # should a load fail, all of these are loaded again
        for place in touched.values():
            place.load(read)
        worst = max((self._probe(place, before[name], read) for name, place in touched.items()), default=0.0)
        self.held, self._read = wanted, read
        return worst

    def restore(self) -> float:
        """Give everything the base's values back."""
        return self.take_up((), self.base.read)

    def places(self, name: str) -> list[Place]:
        """The places of a checkpoint's tensor on this rank. Raises EngineError for one that is not known."""
        if name not in self._places:
            self._places[name] = self._found(name)
        return self._places[name]

    def _found(self, name: str) -> list[Place]:
        if self.base.model_type in TRANSPOSED:
            raise EngineError(f"{name} is stored turned round in {self.base.model_type}. {OWN_ENGINE}")
        holder = holder_of(self.model, name)
        if lacking := [part for part in holder.parts if part not in self.base.tensors]:
            raise EngineError(f"{holder.name} is made of {lacking[0]} too, which the base does not hold. {OWN_ENGINE}")
        if holder.kind == TABLE:
            return self._embedding(holder)
        if holder.kind == HEAD:
            return [HeadPlace(holder, self.device, repacks=self.repacks)]
        if holder.kind == LINEAR and holder.parameter == "weight":
            return [LinearPlace(holder, self.device, repacks=self.repacks)]
        return [CopiedPlace(holder)]

    def _embedding(self, holder: Holder) -> list[Place]:
        name = holder.parts[0]
        plan = plan_edit(self.base, Scope(embeddings=True))
        tensor = next((one for one in plan.edited if one.name == name), None)
        if tensor is None:
            raise EngineError(f"{name} is no embedding that is known. {OWN_ENGINE}")
        site = EmbeddingSite(tensor, holder.module, self.base.read(name), self.device)
        head: Any = head_of(self.model, holder.module, name, ties_head=plan.ties_head)
        places: list[Place] = [SitePlace(holder, site)]
        return places if head is None else [*places, SitePlace(holder, HeadSite(site, head, repacks=self.repacks))]

    @staticmethod
    def _probe(place: Place, before_NH: Tensor, read: Read) -> float:
        observed_NH, expected_NH = place.observed(), place.expected(read)
        figures = [relative(observed_NH, expected_NH), torch.zeros((), dtype=torch.float64, device=observed_NH.device)]
        figures += change_figures(observed_NH, expected_NH, before_NH)
        return judge(place.name, iter(torch.stack(figures).tolist()), (place.tolerance, place.tolerance))
