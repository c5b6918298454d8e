"""One vLLM engine whose requests each carry a variant: base and variants in one batch, and no weight changes.

    engine = SteerableReplica(steerable_arguments(arguments, sites=("inputs",), max_rank=8))
    engine.put("k1", rows_KH)                                     # orthonormal rows of a direction or subspace
    asked = [None, Asked("k1", alpha=0.5), Asked("k1", alpha=1)]  # the base, half of it taken out, all of it
    for generation in engine.generate(prompts, sampling, asked): ...

Prompts go in as token ids. Where a request asks for nothing its tokens are the base's, to the bit.
"""
# K = rows, H = hidden size

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.configs.schema import SamplingConfig
from engine.errors import EngineError
from engine.inference.answers import checked_answers
from engine.inference.responses import Generation, generations, teacher_forced
from engine.inference.sampling import sampling_parameters
from engine.inference.turns import start_in_turn
from engine.runtime.requests import INPUTS, Asked, checked
from engine.vllm_compat import stop_engine, stream
from engine.vllm_compat.runtime import RUNTIME_WORKER, SETTINGS, sizes

if TYPE_CHECKING:
    from torch import Tensor

MAX_RANK = 8
ORTHONORMAL = 1e-5  # how far from orthonormal the rows of a removal may be, in float32


def steerable_arguments(
    arguments: dict[str, Any],
    *,
    sites: Sequence[str] = (INPUTS,),
    max_rank: int = MAX_RANK,
    biases: bool = False,
    timed: bool = False,
) -> dict[str, Any]:
    """vLLM's arguments for an engine with interventions at these sites, of up to `max_rank` rows a request.

    biases: writes take the direction out of output biases too. timed: the workers tell how long their operators took.
    """
    settings = {"sites": list(sites), "max_rank": max_rank, "biases": biases, "timed": timed}
    kept = {name: value for name, value in arguments.items() if name != "worker_extension_cls"}
    return kept | {
        "worker_cls": RUNTIME_WORKER,
        "additional_config": {**arguments.get("additional_config", {}), SETTINGS: settings},
    }


class SteerableReplica:
    """An engine of `steerable_arguments`.

    Raises EngineError for an engine that does not start, with vLLM's own message, and for a site that is not known for the
    model.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        settings = arguments["additional_config"][SETTINGS]
        self.sites, self.max_rank = tuple(settings["sites"]), int(settings["max_rank"])
        self.llm = start_in_turn(arguments)
        self.num_blocks, self.hidden_size = sizes(self.llm)
        self.rows: dict[str, Tensor] = {}

    def put(self, variant: str, rows_KH: "Tensor") -> None:
        """Have requests name a variant by these rows. A name stands for one variant as long as the engine lives.

        Raises EngineError for a rank above the buffers, another width, and for a name that stands for other rows.
        """
        import torch
        from safetensors.torch import save

        rows_KH = rows_KH.to(torch.float32).contiguous()
        if rows_KH.dim() != 2 or rows_KH.shape[1] != self.hidden_size:
            raise EngineError(
                f"Variant {variant} has rows {tuple(rows_KH.shape)}; this model's hidden size is {self.hidden_size}."
            )
        if len(rows_KH) > self.max_rank:
            raise EngineError(f"Variant {variant} has {len(rows_KH)} directions; this engine was opened for {self.max_rank}.")
        if variant in self.rows:
            if torch.equal(self.rows[variant], rows_KH):
                return
            raise EngineError(f"Variant {variant} stands for other rows in this engine: its cached prompts would be theirs.")
        checked_answers(self.llm.collective_rpc("runtime_put", args=(variant, save({"rows": rows_KH}))), variant)
        self.rows[variant] = rows_KH

    def check(self, asked: Asked) -> Asked:
        """The request as it will be made. Raises EngineError for one that this engine cannot answer."""
        asked = checked(asked, self.sites, self.num_blocks)
        if asked.variant not in self.rows:
            raise EngineError(f"No variant '{asked.variant}' in this engine; it has {', '.join(self.rows) or 'none'}.")
        if asked.alpha and not self._is_orthonormal(asked.variant):
            raise EngineError(f"The rows of variant {asked.variant} are not orthonormal, so they can be added and not taken out.")
        return asked

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        asked: Sequence[Asked | None],
        *,
        logprobs: bool = False,
        together: bool = False,
    ) -> Iterator[Generation]:
        """Responses, each under what its request asks for (None: nothing), as they finish; otherwise as `Replica.generate`."""
        wanted = [None if one is None else self.check(one) for one in asked]
        parameters = sampling_parameters(prompts, sampling, logprobs=logprobs)
        yield from generations(self._outputs(prompts, wanted, parameters, together=together), logprobs=logprobs)

    def mean_logprobs(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], asked: Sequence[Asked | None] | None = None
    ) -> list[float | None]:
        """Teacher-forced mean log-probability (nats a token) of each response after its prompt; None for an empty one.

        asked: what each is computed under; None for the base. The response's tokens count as the prompt's then: positions are
        every or none.
        """
        wanted = [None if one is None else self.check(one) for one in asked or [None] * len(prompts)]

        def ask(sequences: list[list[int]], places: list[int], parameters: Any) -> Iterator[tuple[int, Any]]:
            return self._outputs(sequences, [wanted[place] for place in places], parameters)

        return teacher_forced(ask, prompts, responses)

    def _outputs(
        self, sequences: Sequence[Sequence[int]], asked: Sequence[Asked | None], parameters: Any, *, together: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Each sequence's place and vLLM's output, as they finish; `parameters` are SamplingParams, one for all or one each."""
        requests, own = steered(sequences, asked, parameters)
        yield from stream(self.llm, requests, own, together=together)

    def close(self) -> None:
        """Stop the engine and give its memory back."""
        stop_engine(self.llm)
        del self.llm

    def _is_orthonormal(self, variant: str) -> bool:
        import torch

        rows_KH = self.rows[variant].double()
        return bool((rows_KH @ rows_KH.T - torch.eye(len(rows_KH))).abs().max() < ORTHONORMAL)


def steered(
    sequences: Sequence[Sequence[int]], asked: Sequence[Asked | None], parameters: Any
) -> tuple[list[dict[str, Any]], list[Any]]:
    """Prompts and SamplingParams as vLLM's `generate` takes them, each with its intervention; `parameters` as for `_outputs`."""
    shared = parameters if isinstance(parameters, list) else [parameters] * len(sequences)
    prompts = [_prompt(sequence, request) for sequence, request in zip(sequences, asked, strict=True)]
    return prompts, [_with(one, request) for one, request in zip(shared, asked, strict=True)]


def _with(parameters: Any, asked: Asked | None) -> Any:
    """Sampling parameters that carry what the request asks for."""
    if asked is None or asked.is_nothing:
        return parameters
    own = parameters.clone()
    own.extra_args = {**(own.extra_args or {}), **asked.extra_args()}
    return own


def _prompt(token_ids: Sequence[int], asked: Asked | None) -> dict[str, Any]:
    """A prompt whose cached keys and values belong to its intervention alone."""
    salt = None if asked is None else asked.cache_salt()
    return {"prompt_token_ids": list(token_ids)} | ({} if salt is None else {"cache_salt": salt})
