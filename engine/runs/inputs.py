"""A run's inputs: the validated configuration, prompts, checkpoint and renderer.

Everything that can be checked without a model is checked while this is made.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from editing.checkpoint import Checkpoint
from editing.plan import EditPlan, plan_edit
from engine.configs.conditions import conditions_of
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.errors import EngineError
from engine.inference.answers import check_scope
from engine.inference.arguments import kept_bytes
from engine.inference.arithmetic import BYTES_PER_VALUE, Arithmetic, arithmetic_of
from engine.models.locate import checkpoint_hash, open_model
from engine.models.thinking import Thinking
from engine.models.tokenizer import open_renderer, rendering_files
from engine.models.window import check_engine_window, window_of
from engine.runs.of_config import doctor_knows, given_layers, scope_of, with_dtype
from engine.runs.renderings import Renderings
from engine.runs.requests import ANSWERABLE, DECLINED, Request, read_prompts, sampled, under
from extraction.conversations import has_system
from extraction.positions import expand_positions, is_generated, offset_of, offsets_of
from extraction.prompts import resolve
from extraction.thinking import written_markers

if TYPE_CHECKING:
    from engine.models.variant import Variant
    from extraction.rendering import ChatRenderer, RenderedPair

WINDOW = 4096


class RunInputs:
    """A run's inputs. Its `config` names the type that the model runs in here."""

    def __init__(self, config: RunConfig) -> None:
        self.pairs, _ = read_prompts(config.data, config.sweep.seed)
        self.under = {condition.label: condition.applied(config) for condition in conditions_of(config)}
        self.requests = [
            request
            for number, (label, own) in enumerate(self.under.items())
            for request in sampled(under(read_prompts(own.data, own.sweep.seed)[1], label, number), own.sampling.samples)
        ]
        with doctor_knows(config.model.path):
            self.checkpoint: Checkpoint = open_model(config.model)
            self.arithmetic: Arithmetic = arithmetic_of(config.model.dtype, self.checkpoint)
            self.plan: EditPlan = plan_edit(self.checkpoint, scope_of(config))
        self.config = with_dtype(config, self.arithmetic.dtype)

    def layers(self) -> list[int]:
        """The configured layers. Raises EngineError where nobody has published any, and for one that the model lacks."""
        layers = given_layers(self.config)
        self.check_layers(layers, "directions.layers or --layers")
        return layers

    def check_layers(self, layers: Sequence[int], setting: str) -> None:
        """Raise EngineError for a layer that the model lacks, naming the setting to change."""
        last = self.checkpoint.num_layers
        for layer in layers:
            if not 0 <= layer <= last:
                raise EngineError(
                    f"Layer {layer} is out of range: {self.config.model.path} has layers 0 to {last} "
                    f"(resid_pre numbering; {last} is the last block's output). Change {setting}."
                )

    @property
    def directions_bytes(self) -> int:
        """Size of directions.safetensors: three float64 tensors of (L+1, H)."""
        return 3 * 8 * (self.checkpoint.num_layers + 1) * self.checkpoint.hidden_size

    @property
    def engine_bytes(self) -> int:
        """Size of the weights in the type that the model runs in: float32 doubles a 16-bit checkpoint."""
        return self.checkpoint.num_values * BYTES_PER_VALUE[self.config.model.dtype]

    @property
    def swapped_bytes(self) -> int:
        """Size of what a hot swap keeps beside the model."""
        return kept_bytes(self.checkpoint, self.plan)

    @cached_property
    def base_hash(self) -> str:
        return checkpoint_hash(self.checkpoint)

    @cached_property
    def renderer(self) -> "ChatRenderer":
        with doctor_knows(self.config.model.path):
            return open_renderer(self.checkpoint.directory, self.config.model)

    @cached_property
    def thinking(self) -> Thinking | None:
        """What tells a response's trace from its answer; None for a model that does not think first."""
        reasoning = self.config.model.reasoning
        return None if reasoning is None else Thinking(self.renderer.tokenizer, self.renderer.template, reasoning)

    @cached_property
    def merges_system(self) -> bool:
        """Whether system texts stand in the user's first turn, for want of a place of their own."""
        asked = any(has_system(request.text) for request in self.requests)
        return asked and not self.renderer.takes_system()

    @property
    def _max_tokens(self) -> int:
        """New tokens of the longest response under any condition; a session may have widened its own."""
        return max(self.config.sampling.max_tokens, *(own.sampling.max_tokens for own in self.under.values()))

    def offsets(self, positions: Sequence[str]) -> dict[str, int]:
        """Each position's offset from the end of a rendered prompt; `post_instruction` stands for all of the template's."""
        names = expand_positions(positions, self.renderer.num_post_tokens)
        return {name: offset_of(name, self.renderer.num_post_tokens) for name in names}

    @cached_property
    def base(self) -> "Variant":
        from engine.models.variant import Variant

        return Variant("base", self.base_hash, self.plan, None)

    @cached_property
    def replaced(self) -> "Variant":
        """The variant of a configuration with a checkpoint. Raises EngineError for no folder, EditError for another base's."""
        from engine.models.foreign import replaced

        assert self.config.checkpoint is not None
        return replaced(self.config.variant, self.config.checkpoint, self.checkpoint, self.base_hash, self.plan)

    @property
    def room_for_prompt(self) -> int:
        """Tokens a prompt may have: the window less the new tokens and the one that reading likelihoods asks for."""
        window = self._model_window
        asked = self.config.vllm.get("max_model_len", window)
        return min(window, asked if isinstance(asked, int) else window) - self._max_tokens - 1

    @property
    def _model_window(self) -> int:
        return window_of(self.checkpoint)

    @property
    def window(self) -> int | None:
        """Tokens that the engine has room for in one request, where the configuration does not say: the longest prompt so far
        with its response, and no less than WINDOW, within the model's own. None where the configuration says it.

        A model's own window can be 131,072: on a small card the cache of one such request would not fit.
        """
        if "max_model_len" in self.config.vllm:
            return None
        longest = self._renderings.longest + self._max_tokens + 1
        return min(max(longest, WINDOW), self._model_window)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """A run's identity: the resolved configuration and the hashes of the files it reads."""
        from engine.paths import file_hash, user_path

        data = self.config.data
        files = {
            "train_pairs": data.train_pairs,
            "test_requests": data.test_requests,
            "test_answerable": data.test_answerable,
        }
        if (given := self.config.directions.file) is not None:
            if not user_path(given).is_file():
                raise EngineError(f"Directions file {given} does not exist. Give a directions.safetensors, or leave it out.")
            files["directions"] = given
        checkpoint = {} if self.config.checkpoint is None else {"checkpoint": self.replaced.contents}
        rendering = rendering_files(self.checkpoint.directory, self.config.model)
        return {
            "config": self.config.model_dump(
                mode="json",
                exclude={"checkpoint": True, "sweep": True, "data": {"selection_pairs", "unrelated"}, "directions": {"file"}},
            ),
            "base_hash": self.base_hash,
            "rendering_hashes": {name: file_hash(file) for name, file in rendering.items()},
            "data_hashes": {name: file_hash(resolve(source)) for name, source in files.items()} | checkpoint,
        }

    def directions_inputs(self) -> dict[str, Any]:
        """The settings that directions depend on, and nothing else of the configuration."""
        if "directions" in self.identity["data_hashes"]:
            return {"base": self.base_hash, "file": self.identity["data_hashes"]["directions"]}
        response = is_generated(self.config.directions.position)
        generated = {"sampling": self.config.sampling.model_dump(mode="json"), "vllm": self.config.vllm} if response else {}
        return {
            **generated,
            "base": self.base_hash,
            "pairs": self.identity["data_hashes"]["train_pairs"],
            "rendering": self.identity["rendering_hashes"],
            "num_pairs": len(self.pairs),
            "columns": self.config.data.pair_columns,
            "pairs_kept": [self.config.data.hold_out, self.config.data.split, self._kinds_of_split],
            "position": self.config.directions.position,
            "estimator": self.config.directions.estimator,
            "model": self.config.model.model_dump(mode="json", exclude={"path", "revision"}),
        }

    @property
    def _kinds_of_split(self) -> list[str]:
        return sorted({pair.category for pair in self.pairs}) if self.config.data.split == "kinds" else []

    def check_in_place(self, command: str) -> None:
        """Raise EngineError where variants are to be taken up at run time, which a command does not do."""
        if self.config.edit.form != "in_place":
            raise EngineError(
                f"{command} takes edit.form = 'in_place'; found '{self.config.edit.form}'. Use that with bin/rollout, or with "
                "bin/sweep --engines 1."
            )

    def check_swappable(self) -> None:
        """Raise for an edit that no running engine takes up: a head untied. What one engine does not take, it says itself."""
        check_scope(self.plan.scope, self.plan.scope)

    def check_prompts(self) -> None:
        """Render everything that a model will see: a template or a length that cannot serve shows before anything is written."""
        if self.room_for_prompt < 1:
            raise EngineError(
                f"sampling.max_tokens = {self.config.sampling.max_tokens} leaves no room for a prompt in the model's window. "
                "Lower it, or raise vllm.max_model_len."
            )
        if isinstance(asked := self.config.vllm.get("max_model_len"), int):
            check_engine_window(self.checkpoint, asked)
        markers = written_markers(self.renderer.template)
        if self.thinking is None and markers is not None and markers[1] not in self.renderer.rendered_probe:
            say(f"traces: the chat template writes {' '.join(markers)}; where the model thinks first, --set model.reasoning=auto")
        if self.merges_system:
            say("system prompts: the chat template has no place for them, so each stands before the user's first text")
        pairs = self.rendered_pairs()
        sides = {"declined": [pair.declined for pair in pairs], "answered": [pair.answered for pair in pairs]}
        for side, prompts in sides.items():
            offsets_of(self.offsets([self.config.directions.position]), prompts, f"{side} training prompts")
        for kind in (DECLINED, ANSWERABLE):
            self.render([request for request in self.requests if request.kind == kind], f"{kind} test requests")

    def rendered_pairs(self) -> "list[RenderedPair]":
        """The training pairs as token ids, none longer than the window."""
        from extraction.rendering import RenderedPair

        declined = self.render_texts([pair.declined for pair in self.pairs], "declined training prompts")
        answered = self.render_texts([pair.answered for pair in self.pairs], "answered training prompts")
        return [RenderedPair(*sides) for sides in zip(declined, answered, strict=True)]

    def render(self, requests: Sequence[Request], kind: str) -> list[list[int]]:
        """Token ids of requests under their conditions, none longer than the window."""
        asked = [(request.text, request.condition) for request in requests]
        return self._rendered_under(asked, kind)

    def render_texts(self, texts: Sequence[str], kind: str, condition: str = "") -> list[list[int]]:
        """Token ids of prompts, none longer than the window; condition: the one that they are asked under."""
        return self._rendered_under([(text, condition) for text in texts], kind)

    def _rendered_under(self, asked: Sequence[tuple[str, str]], kind: str) -> list[list[int]]:
        rendered = self._renderings.of(asked, kind)
        self.renderer.check_lengths(rendered, self.room_for_prompt, kind)
        return rendered

    @cached_property
    def _renderings(self) -> Renderings:
        models = {label: with_dtype(own, self.config.model.dtype).model for label, own in self.under.items()}
        return Renderings(self.checkpoint, {**models, "": self.config.model}, lambda: self.renderer)
