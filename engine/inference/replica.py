"""One vLLM engine on one model: generates for the base and for every variant, which it takes up by hot swap.

Prompts go in as token ids. After a swap that failed it refuses to generate until one succeeds.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from engine.configs.schema import SamplingConfig
from engine.errors import EngineError
from engine.inference.answers import call_of, check_scope, check_taken_up, checked_answers, opening_of
from engine.inference.responses import Generation, generations, opening_shares, teacher_forced
from engine.inference.sampling import joined, sampling_parameters
from engine.inference.turns import start_in_turn
from engine.models.variant import Variant
from engine.vllm_compat import engine_death, stop_engine, stream


class Replica:
    """An engine; `current` is the variant it holds, None before the first swap and after a failed one.

    The scope of `base`'s plan says whether embeddings and biases can be swapped. Raises EngineError for an engine that does
    not start, with vLLM's own message, and for one that holds a tensor in a way that a swap does not know.
    """

    def __init__(self, arguments: dict[str, Any], base: Variant) -> None:
        self.arguments = arguments
        self.base = base
        self.llm = start_in_turn(arguments)
        answers = self.llm.collective_rpc("hotswap_open", args=opening_of(arguments["model"], base.plan.scope))
        self.num_sites = int(checked_answers(answers, "")[0]["sites"])
        self.current: Variant | None = None  # the first swap, to the base too, loads and probes

    def swap(self, variant: Variant) -> float:
        """Take up a variant; returns the largest probe error over layers and workers.

        Raises EngineError for a variant of another base or a wider scope, SwapFailed where the probe finds other weights.
        """
        if variant.base_hash != self.base.base_hash:
            raise EngineError(f"Variant {variant.name} was made from another base than the model in this engine.")
        check_scope(variant.plan.scope, self.base.plan.scope)
        check_taken_up(variant)
        if self.current is not None and self.current.hash == variant.hash:
            return 0.0
        self.current = None
        with engine_death():
            method, arguments = call_of(variant)
            answers = self.llm.collective_rpc(method, args=arguments)
        worst = max(float(answer["probe_error"]) for answer in checked_answers(answers, variant.hash))
        self.forget_prompts()  # keys and values of the old weights
        self.current = variant
        return worst

    def forget_prompts(self) -> None:
        """Empty the prefix cache, so that what comes next does not depend on what came before.

        Raises EngineError where a request holds a part of it.
        """
        if self.llm.reset_prefix_cache() is False:
            raise EngineError("The engine's prefix cache could not be emptied: a request is still under way.")

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        *,
        together: bool = False,
        logprobs: bool = False,
        samples: Sequence[int] | None = None,
    ) -> Iterator[Generation]:
        """Responses of the current variant, each as it finishes (not in order); `together` as for `outputs`.

        `logprobs` has each tell its own mean log-probability, as `mean_logprobs` would compute it anew. `samples` numbers the
        samples of a prompt: neighbours that are of one prompt are one request, and each sample has a seed of its own.
        """
        asked = joined(prompts, samples)
        parameters = sampling_parameters(asked.prompts, sampling, logprobs=logprobs, counts=asked.counts)
        outputs = self.outputs(asked.prompts, parameters, together=together)
        yield from generations(outputs, logprobs=logprobs, places=asked.places)

    def mean_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        on_row: Callable[[], None] = lambda: None,
        *,
        shared: bool = False,
    ) -> list[float | None]:
        """Teacher-forced mean log-probability (nats a token) of each response after its prompt; None for an empty one.

        `shared` takes the prompts' keys and values from the engine's cache, as `teacher_forced` does.
        """
        return teacher_forced(self._ask, prompts, responses, on_row, shared=shared)

    def opening_shares(self, prompts: Sequence[Sequence[int]], tokens: Collection[int], likeliest: int) -> list[float]:
        """The probability that each answer begins with one of `tokens`, among its `likeliest` first tokens."""
        return opening_shares(self._ask, prompts, tokens, likeliest)

    def _ask(self, sequences: list[list[int]], places: list[int], parameters: Any) -> Iterator[tuple[int, Any]]:
        return self.outputs(sequences, parameters)

    def outputs(
        self, sequences: Sequence[Sequence[int]], parameters: Any, *, together: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Each sequence's place and vLLM's output, as they finish; `parameters` are SamplingParams, one for all or one each.

        `together` has an engine in a process of its own wait for the last sequence before it starts, as one in this process
        does: equal calls then make equal batches.
        """
        if self.current is None:
            raise EngineError("No hot swap has succeeded, so the engine may hold mixed weights. Swap before generating.")
        prompts = [{"prompt_token_ids": list(token_ids)} for token_ids in sequences]
        yield from stream(self.llm, prompts, parameters, together=together)

    def close(self) -> None:
        """Stop the engine and give its memory back."""
        stop_engine(self.llm)
        del self.llm
