"""The configuration of a run: typed, every key known, validated before anything heavy is imported.

A docstring under each field gives its unit, the reason for its default and what it works with. Files are read by
engine.configs.load; precedence is defaults < file (and what it extends) < flag.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from engine.configs.sections import DataConfig as DataConfig
from engine.configs.sections import DirectionsConfig as DirectionsConfig
from engine.configs.sections import FiniteNumber, known_position, layer_list, without_unset
from engine.configs.sections import ModelConfig as ModelConfig
from engine.configs.sections import Section as Section
from engine.configs.sections import parse_numbers as parse_numbers
from extraction.positions import POST_INSTRUCTION
from extraction.thinking import is_of_trace


class EditConfig(Section):
    alpha: FiniteNumber = 1.0
    """Share of the projection that is removed: 1 all of it, 0 none, 2 a reflection."""
    alpha_by_layer: dict[int, FiniteNumber] = {}
    """Other shares for some blocks: the block's number and its alpha."""
    layers: Annotated[list[int] | None, BeforeValidator(layer_list)] = None
    """Blocks whose writers are edited, such as "4-20,25"; None edits all."""
    embeddings: bool = False
    """Edit token and position embeddings too. Where the embedding is also the head, the head changes with it."""
    biases: bool = False
    """Edit the output biases of attention and MLP too."""
    untie: bool = False
    """With tied embeddings: write the head as a tensor of its own, so that only the writer changes."""
    keep_norms: bool = False
    """Rescale each edited vector to its old length; the direction stays removed. Takes alpha 1."""
    form: Literal["in_place", "runtime"] = "in_place"
    """How an engine takes a variant up: "in_place" exchanges weights, "runtime" takes the directions out of what is written."""

    @model_serializer(mode="wrap")
    def _without_the_usual_form(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs made before there were two forms have their identity still."""
        return {key: value for key, value in serialize(self).items() if (key, value) != ("form", "in_place")}

    @model_validator(mode="after")
    def _norms_need_all_of_it(self) -> "EditConfig":
        if self.keep_norms and (self.alpha != 1 or any(alpha != 1 for alpha in self.alpha_by_layer.values())):
            raise ValueError("keep_norms takes alpha 1: with a part left in, rescaling would change what is left")
        return self


class SamplingConfig(Section):
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    """0 is greedy, as in the study."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of the probability that sampling keeps, the most probable tokens first."""
    max_tokens: int = Field(64, ge=1)
    """New tokens per response."""
    seed: int = 0
    """Of sampling; without effect when greedy."""
    samples: int = Field(1, ge=1)
    """Responses to each prompt, each with a seed of its own. More than one takes a temperature above 0."""
    thinking_tokens: int | None = Field(None, ge=0)
    """Tokens that a trace may take, within max_tokens: vLLM writes the end marker then. Takes model.reasoning."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs made before there were these keys have their identity still."""
        return without_unset(serialize(self), "thinking_tokens")

    @model_validator(mode="after")
    def _greedy_gives_one(self) -> "SamplingConfig":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 takes a temperature above 0: greedy responses are all the same")
        return self


class SweepConfig(Section):
    """Candidates of bin/sweep, and how it chooses among them. The studies read `seed` of it."""

    layers: Annotated[list[int] | None, BeforeValidator(layer_list)] = None
    """Layers whose directions are tried one by one, such as "4-20,25"; None tries 1 to L."""
    alphas: list[FiniteNumber] = [1.0]
    """Shares removed, each tried with every direction."""
    positions: list[str] = ["last"]
    """Tokens the directions are read at; post_instruction stands for every template token after the user's text."""
    subspaces: list[str] = ["top3", "top5"]
    """Subspaces tried beside single directions: topN of the best single ones, or layers such as "1-15"."""
    exhaustive: bool = False
    """Generate at full length with every candidate instead of screening and halving first."""
    screen_prompts: int = Field(32, ge=2)
    """Selection pairs that the screen reads, as in the paper."""
    max_kl: FiniteNumber = 0.1
    """The screen's limit on the KL of the next token on answered prompts, in nats; the paper's value."""
    min_induce: FiniteNumber = 0.0
    """The screen's limit on the refusal log-odds that adding a direction gives answered prompts; the paper's value."""
    max_depth: float = Field(0.8, gt=0)
    """The screen leaves out layers from this share of the depth on: they act on the words, not on the decision."""
    keep: int = Field(6, ge=1)
    """Candidates that the screen passes on, the strongest bypass first."""
    first_round: int = Field(32, ge=4)
    """Prompts of the first halving round; each further round doubles them."""
    short_tokens: int = Field(32, ge=1)
    """New tokens per response in the halving rounds."""
    finalists: int = Field(3, ge=1)
    """Single directions that reach the test prompts, beside the best of each subspace."""
    controls: int | None = Field(None, ge=0)
    """Draws of shuffled labels, and as many random directions of the stream's covariance, each chosen as the winner is. The
    winner's p against n of them is at least 1 / (n + 1). None: 20 on a GPU, 2 without one; 0: none."""
    seed: int = 0
    """Of the random directions and the shuffled labels, in sweeps and in every study."""

    @field_validator("positions")
    @classmethod
    def _positions_known(cls, names: list[str]) -> list[str]:
        return [name if name == POST_INSTRUCTION else known_position(name) for name in names]

    @field_validator("subspaces")
    @classmethod
    def _subspaces_known(cls, names: list[str]) -> list[str]:
        for name in names:
            if not re.fullmatch(r"top([2-9]|[1-9]\d+)", name):
                parse_numbers(name)
        return names

    @model_validator(mode="after")
    def _not_empty(self) -> "SweepConfig":
        for name in ("layers", "alphas", "positions", "subspaces"):
            values = getattr(self, name)
            if values == [] and name != "subspaces":
                raise ValueError(f"{name} is empty, so there is nothing to try")
            if values and len(set(values)) < len(values):
                raise ValueError(f"{name} names one more than once")
        return self


class JudgeConfig(Section):
    name: str = Field("offline", min_length=1)
    """`offline` (documented rules, no language model; the summary says so), a file in configs/judges/, or the path of a TOML."""
    repeat: int = Field(1, ge=1)
    """How often a language model is asked about each response, to see how far it agrees with itself."""
    reads_trace: bool = False
    """Show a judge what a model thought before its answer, too. The rules read the answer alone."""
    max_cost: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Stop before a job's calls can cost more than this, in the price table's currency; None: no limit."""


class PublishedConfig(Section):
    """Figures of the study for this variant, printed beside ours."""

    compliance: float | None = Field(None, ge=0, le=1)
    coherence: float | None = Field(None, ge=0, le=1)
    note: str = ""


class RunConfig(Section):
    """One variant of one model, and how it is evaluated."""

    variant: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The label: the file's name. The identity is the variant hash."""
    description: str = ""
    """What the variant is, for people."""
    model: ModelConfig
    data: DataConfig = DataConfig()
    directions: DirectionsConfig
    edit: EditConfig = EditConfig()
    sampling: SamplingConfig = SamplingConfig()
    judge: JudgeConfig = JudgeConfig()
    sweep: SweepConfig = SweepConfig()
    published: PublishedConfig | None = None
    checkpoint: str | None = None
    """A folder made from the model by others, whole or a LoRA: the variant is what it is. A file says `[variant] checkpoint`."""
    vllm: dict[str, Any] = {}
    """Passed to vLLM's engine under vLLM's own names."""
    vary: dict[str, dict[str, Any]] = {}
    """Factors of how test requests are asked, each with its levels by label: bin/rollout asks all of them under every
    combination. Directions come of the configuration itself."""

    @field_validator("vary")
    @classmethod
    def _two_levels(cls, factors: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if few := next((key for key, levels in factors.items() if len(levels) < 2), None):
            raise ValueError(f"{few} has one level; expected two or more, so that there is something to compare")
        return factors

    @model_validator(mode="after")
    def _a_trace_has_markers(self) -> "RunConfig":
        if self.sampling.thinking_tokens is not None and self.model.reasoning is None:
            raise ValueError("sampling.thinking_tokens bounds a trace, and model.reasoning does not say how one is marked")
        asked = next((name for name in (self.directions.position, *self.sweep.positions) if is_of_trace(name)), None)
        if asked is not None and self.model.reasoning is None:
            raise ValueError(f"position {asked} is one of models that think first: model.reasoning says how a trace is marked")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs made before there were conditions, or a checkpoint could be a variant, have their identity still."""
        return {key: value for key, value in serialize(self).items() if key not in ("vary", "checkpoint") or value}

    @model_validator(mode="after")
    def _sweep_keeps_norms_whole(self) -> "RunConfig":
        if self.edit.keep_norms and self.sweep.alphas != [1.0]:
            raise ValueError("edit.keep_norms takes alpha 1, so sweep.alphas must be 1 alone")
        return self
