"""An engine with `Replica`'s interface whose variants are taken out of what is written, while it runs: no weight changes.

What attention and MLP write leaves without the subspace, as a folded checkpoint writes it; behind a norm exactly, where a
folded weight is near. Rows made so have the form runtime.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from editing.plan import PROJECTIONS
from engine.configs.schema import SamplingConfig
from engine.errors import EngineError
from engine.inference.replica import Replica
from engine.inference.responses import Generation, generations
from engine.inference.sampling import joined, sampling_parameters
from engine.inference.steerable import SteerableReplica, steered
from engine.models.variant import Variant
from engine.runtime.requests import EMBEDDING, WRITES, Asked
from engine.vllm_compat import stream


@dataclass(frozen=True)
class Mixed:
    """One variant's part of a queue: its prompts, and which sample of its prompt each is."""

    variant: Variant
    prompts: Sequence[Sequence[int]]
    samples: Sequence[int]


class RuntimeReplica(Replica):
    """An engine of `steerable_arguments` for the sites of `base`'s scope; `current` is the variant that requests get."""

    def __init__(self, arguments: dict[str, Any], base: Variant) -> None:
        self.arguments, self.base = arguments, base
        self.engine = SteerableReplica(arguments)
        self.llm = self.engine.llm
        self.num_sites = 0  # nothing is exchanged
        self.current: Variant | None = None
        self._asked: Asked | None = None

    def swap(self, variant: Variant) -> float:
        """Have the next requests get a variant. Nothing is loaded, so there is no probe: returns 0.

        Raises EngineError for a variant of another base, and for one that a run-time intervention does not stand for.
        """
        if variant.base_hash != self.base.base_hash:
            raise EngineError(f"Variant {variant.name} was made from another base than the model in this engine.")
        self._asked = self.asked_of(variant)
        self.current = variant
        return 0.0

    def outputs(
        self, sequences: Sequence[Sequence[int]], parameters: Any, *, together: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """As `Replica.outputs`, under the current variant."""
        if self.current is None:
            raise EngineError("This engine has no variant yet. Swap before generating, to the base for none.")
        prompts, own = steered(sequences, [self._asked] * len(sequences), parameters)
        yield from stream(self.llm, prompts, own, together=together)

    def generate_mixed(
        self, parts: Sequence[Mixed], sampling: SamplingConfig, *, logprobs: bool = False
    ) -> list[list[Generation]]:
        """Responses of several variants from one queue, part by part, as `generate` gives each alone but for rounding."""
        requests: list[Any] = []
        asked: list[Asked | None] = []
        parameters: list[Any] = []
        owners: list[tuple[int, dict[int, int]]] = []  # whose a request is, and its samples' places there
        for number, part in enumerate(parts):
            join = joined(part.prompts, part.samples)
            own = sampling_parameters(join.prompts, sampling, logprobs=logprobs, counts=join.counts)
            requests += join.prompts
            asked += [self.asked_of(part.variant)] * len(join.prompts)
            parameters += own if isinstance(own, list) else [own] * len(join.prompts)
            owners += [(number, places) for places in join.places]
        made: list[list[Generation]] = [[] for _ in parts]
        for place, output in stream(self.llm, *steered(requests, asked, parameters), together=True):
            number, places = owners[place]
            made[number] += generations([(0, output)], logprobs=logprobs, places=[places])
        return made

    def asked_of(self, variant: Variant) -> Asked | None:
        """What a request asks for to get a variant, whose rows the engine has from then on; None for the base."""
        if variant.is_base:
            return None
        if reason := beyond_runtime(variant):
            raise EngineError(f"Variant {variant.name} {reason}, which edit.form = 'runtime' does not do. Use 'in_place'.")
        assert variant.edit is not None
        self.engine.put(variant.hash, variant.edit.basis_HK.T)
        return self.engine.check(Asked(variant.hash, variant.edit.alpha, site=site_of(variant)))


def site_of(variant: Variant) -> str:
    """Where a variant is taken out at run time: of what is written, and of the embedding where its edit reaches that."""
    return f"{WRITES}+{EMBEDDING}" if variant.plan.scope.embeddings else WRITES


def beyond_runtime(variant: Variant) -> str:
    """What a variant does that no intervention on writes stands for; "" where there is nothing."""
    edit, plan = variant.edit, variant.plan
    if edit is None:
        return "" if variant.is_base else "is a checkpoint"
    writers = [tensor for tensor in plan.writers if tensor.role in PROJECTIONS]
    if edit.keep_norms:
        return "keeps the norms of edited vectors"
    if any(tensor.reason or tensor.alpha not in (None, edit.alpha) for tensor in writers):
        return "edits some blocks more than others"
    return "edits the output head with the embedding" if plan.edits_head else ""
