"""vLLM's worker with interventions at run time: `worker_cls` of an engine that is started for them.

It hooks the model when it is loaded, before anything is compiled, and hears of each request before its first pass. Its own
methods are called by name and answer with plain values, as those of `engine.inference.vllm_worker` do.
"""
# H = hidden size, K = rows, N = places

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editing.checkpoint import open_checkpoint
from editing.plan import EditPlan, Scope, plan_edit
from engine.runtime.interventions import Intervention, Interventions, TimedInterventions
from engine.runtime.requests import Asked, asked_of
from engine.runtime.sites import chosen, hook, places_of
from engine.runtime.slots import Slots
from engine.vllm_compat.runtime import (
    Step,
    before_each_pass,
    check_parallelism,
    model_folder,
    most_requests,
    most_tokens,
    platform_worker,
    runtime_settings,
    sizes,
    step_of,
)

Worker: Any = platform_worker()


class Runtime:
    """A worker's interventions: its places, the tables of their operators, and the variants that requests may name."""

    def __init__(self, worker: Any) -> None:
        settings = runtime_settings(worker)
        check_parallelism(worker)
        model, (num_blocks, hidden_size) = worker.get_model(), sizes(worker)

        def plan() -> EditPlan:
            return plan_edit(open_checkpoint(Path(model_folder(worker))), Scope(biases=settings["biases"]))

        self.places = places_of(model, tuple(settings["sites"]), num_blocks, plan)
        self.device = next(model.parameters()).device
        kind = TimedInterventions if settings.get("timed") else Interventions
        self.tables: Interventions = kind(
            num_sites=len(self.places),
            hidden_size=hidden_size,
            num_slots=most_requests(worker),
            max_rank=settings["max_rank"],
            max_tokens=most_tokens(worker),
            device=self.device,
        )
        self.handles = hook(self.places, self.tables)
        self.slots = Slots(self.tables, self.make)
        self.rows: dict[str, Tensor] = {}
        self.step = Step(set())
        before_each_pass(worker, self.fill)

    def put(self, variant: str, rows_KH: Tensor) -> None:
        """Have requests name a variant by these rows."""
        self.rows[variant] = rows_KH.to(self.device, torch.float32)
        self.slots.forget(variant)

    def present(self, here: bool) -> None:
        """Stand the operators at their places, or take them away: vLLM as it is, to be measured beside. In eager mode alone."""
        for handle in self.handles:
            handle.remove()
        self.handles = hook(self.places, self.tables) if here else []

    def fill(self, requests: Sequence[str], lengths: Sequence[int]) -> None:
        """Name the slots of a pass's tokens."""
        if self.handles:
            self.slots.fill(requests, lengths, self.step.computed)

    def hear(self, step: Step) -> None:
        """What the scheduler says before a pass."""
        self.step = step
        self.slots.end(step.finished)
        for name, request in step.new.items():
            self.slots.begin(name, asked_of(request.extra_args), request.prompt_length)

    def make(self, asked: Asked) -> Intervention:
        """What a request asks for, on every place; a bias that an edit of the weights leaves is left here too."""
        rows_KH = self.rows[asked.variant]
        acts_N1 = torch.tensor(chosen(self.places, asked.site), dtype=torch.float32)[:, None]
        ones_NK = acts_N1.expand(-1, len(rows_KH))
        biases_NK = torch.stack([self._component(place.bias_H, rows_KH) for place in self.places])
        offsets_NK = ones_NK * (asked.add + asked.alpha * biases_NK)
        return Intervention(rows_KH, ones_NK * asked.alpha, offsets_NK)

    def _component(self, bias_H: Tensor | None, rows_KH: Tensor) -> Tensor:
        return torch.zeros(len(rows_KH)) if bias_H is None else (rows_KH @ bias_H.detach().float()).cpu()


class RuntimeWorker(Worker):
    """vLLM's worker for this machine, whose requests may each carry an intervention."""

    def load_model(self, **settings: Any) -> None:
        """Load the model, and hook it."""
        super().load_model(**settings)
        self.runtime = Runtime(self)

    def execute_model(self, scheduler_output: Any) -> Any:
        """Run a pass, each token under what its request asks for."""
        if self.runtime.handles:
            self.runtime.hear(step_of(scheduler_output))
        return super().execute_model(scheduler_output)

    def runtime_put(self, variant: str, rows: bytes) -> dict[str, Any]:
        """Take up a variant's rows, (K, H) float32 in the bytes of a safetensors file."""
        from safetensors.torch import load

        try:
            self.runtime.put(variant, load(bytes(rows))["rows"])
        except Exception as error:  # whatever it is: an exception would leave the other ranks' answers in the queue
            return {"variant_hash": variant, "error": type(error).__name__, "message": str(error)}
        return {"variant_hash": variant, "places": len(self.runtime.places)}

    def runtime_present(self, here: bool) -> None:
        """Stand the operators at their places, or take them away, between requests of an engine in eager mode."""
        self.runtime.present(here)

    def runtime_seconds(self) -> float:
        """Seconds that the operators of a timed engine took since the last call."""
        tables = self.runtime.tables
        assert isinstance(tables, TimedInterventions)
        seconds, tables.seconds = tables.seconds, 0.0
        return seconds
