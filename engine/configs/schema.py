"""The configuration of a run: typed, every key known, validated before anything heavy is imported.

A docstring under each field gives its unit, the reason for its default and what it works with. Files are read by
engine.configs.load; precedence is defaults < file (and what it extends) < flag.
"""

import math
import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictInt,
    field_validator,
    model_serializer,
    model_validator,
)

from extraction.errors import ExtractionError
from extraction.estimators import ESTIMATORS
from extraction.positions import POST_INSTRUCTION, check_position
from extraction.thinking import is_of_trace


class Section(BaseModel):
    """A table of the TOML file. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _finite_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("expected a number") from None
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


FiniteNumber = Annotated[float, BeforeValidator(_finite_number)]


def without_unset(table: dict[str, Any], *names: str) -> dict[str, Any]:
    """A section's table without keys that an earlier version did not have and that are not set."""
    return {key: value for key, value in table.items() if key not in names or value is not None}


class ModelConfig(Section):
    path: str
    """A folder with config.json and safetensors, a Hugging Face repository name, or `embedded:smollm2-135m-instruct`."""
    revision: str | None = None
    """Commit or tag of a repository; None takes its default branch, and the manifest records the weights' hash anyway."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Arithmetic of extraction and generation. auto: the checkpoint's 16-bit type on a GPU and on a CPU that multiplies it, else
    float32. An edit is rounded to the checkpoint's own type first, whatever the engine runs in."""
    chat_template: str | None = None
    """The template that prompts are rendered through: a file, its text, the name of one of the tokenizer's, or `plain`: a
    question and an answer's label, for base models. None takes the folder's own."""
    chat_template_kwargs: dict[str, Any] = {}
    """Given to the chat template, which has to read each key; fix here what it would take from the clock (date_string)."""
    clock: date | None = None
    """The day that a template which prints the date is given, such as 2026-01-31."""
    merge_system: bool | None = None
    """Put a system text before the user's first text, with an empty line between, where the template has no place for one. None
    and false refuse such a prompt."""
    reasoning: str | None = None
    """How a model that thinks first marks its trace: `auto` (as its template writes it), two markers such as
    "<think>,</think>", or the name of one of vLLM's reasoning parsers. Rows then hold trace and answer apart, and the answer is
    judged. None: all is answer."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _not_ours(cls, given: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(given.keys() & {"tokenize", "add_generation_prompt", "return_dict", "return_tensors", "padding"}):
            raise ValueError(f"{taken[0]} is set by the renderer; leave it out")
        return given

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs made before there were these keys have their identity still."""
        return without_unset(serialize(self), "merge_system", "reasoning")


class DataConfig(Section):
    train_pairs: str = "embedded:train_pairs"
    """Pairs the directions come from."""
    selection_pairs: str | None = None
    """Pairs that a sweep chooses by; None takes the embedded ones beside embedded training pairs, else the last quarter of
    the training pairs, which then make no directions."""
    test_requests: str = "embedded:test_requests"
    """Requests the base model is expected to decline; base and variant answer these."""
    test_answerable: str = "embedded:test_answerable"
    """Requests anyone would answer: the over-refusal set."""
    system: str | None = None
    """A system text for every prompt, which a prompt that brings its own keeps. None: as the template has it."""
    unrelated: str = "embedded:unrelated"
    """Answerable prompts that are nobody's twin: what `bin/extract --unrelated` compares twins with."""
    pair_columns: list[str] | None = None
    """The declined and the answered column of pair files, such as ["harmful", "safe"]; None takes the names that are known
    (extraction/prompts.py). Embedded files have their own."""
    request_column: str | None = None
    """The column of request files, such as "goal"; None takes the name that is known."""
    num_pairs: int | None = Field(None, ge=1)
    """How many training pairs, from the top of the file; None takes all."""
    num_requests: int | None = Field(None, ge=1)
    """How many test requests; None takes all."""
    num_answerable: int | None = Field(None, ge=0)
    """How many answerable test requests; 0 leaves the set out."""
    kinds: Literal["category", "auto", "prompt"] = "category"
    """The unit of every interval and test. category: as the files name it, and each prompt without one by itself. auto: prompts
    that share a template, by edit distance. prompt: each prompt by itself."""
    split: Literal["prompts", "kinds"] = "prompts"
    """kinds: half of the kinds make the directions, and rates on the other half stand apart from theirs."""
    hold_out: int | None = None
    """Set by sweeps and studies without selection pairs: the seed that drew the quarter of the pairs that makes no directions."""

    @field_validator("pair_columns")
    @classmethod
    def _two_columns(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and (len(set(names)) != 2 or len(names) != 2 or not all(name.strip() for name in names)):
            raise ValueError("expected two column names, the declined and the answered one")
        return names

    @field_validator("request_column")
    @classmethod
    def _one_column(cls, name: str | None) -> str | None:
        if name is not None and not name.strip():
            raise ValueError("expected a column's name")
        return name

    @field_validator("system")
    @classmethod
    def _some_text(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("expected a text; leave the key out for none")
        return text

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs made before there were these keys have their identity still."""
        return without_unset(serialize(self), "system")


class DirectionsConfig(Section):
    layers: list[StrictInt] | Literal["sweep"]
    """Layers whose directions are removed, in resid_pre numbering (L is the last block's output); "sweep" where nobody
    has published one: the command then asks for --layers."""
    k: int | None = Field(None, ge=1)
    """Dimension of the subspace; None takes one per layer, fewer takes the leading singular vectors."""
    position: str = "last"
    """Where directions are read: last, last_instruction, post_instruction:N (the Nth template token after the text), or
    response (the mean over the base's own response, which is generated first)."""
    file: str | None = None
    """A directions.safetensors to use instead of extracting. The same file gives the same variant hash on every machine;
    directions extracted anew differ in their last digits from one kind of processor to another."""
    estimator: str = "mean_difference"
    """How a layer's direction is made of the pairs; extraction/estimators.py has them and says what each does."""

    @field_validator("position")
    @classmethod
    def _position_known(cls, name: str) -> str:
        return _known_position(name)

    @field_validator("estimator")
    @classmethod
    def _estimator_known(cls, name: str) -> str:
        if name not in ESTIMATORS:
            raise ValueError(f"expected one of {', '.join(ESTIMATORS)}")
        return name

    @field_validator("layers")
    @classmethod
    def _layers_given(cls, layers: list[int] | str) -> list[int] | str:
        if layers == []:
            raise ValueError("expected at least one layer")
        if len(set(layers)) < len(layers) and isinstance(layers, list):
            raise ValueError("a layer is named more than once")
        return layers

    @model_validator(mode="after")
    def _k_fits(self) -> "DirectionsConfig":
        if self.k is not None and isinstance(self.layers, list) and self.k > len(self.layers):
            raise ValueError(f"k = {self.k} is larger than the number of layers given ({len(self.layers)})")
        return self


def _known_position(name: str) -> str:
    try:
        return check_position(name)
    except ExtractionError as error:
        raise ValueError(str(error)) from None


def parse_numbers(text: str) -> list[int]:
    """Whole numbers from 16,15,17 or 4-20,25, in the order given. Raises ValueError for anything else."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError("expected numbers such as 16,15,17 or 4-20,25")
        if int(last or first) < int(first):
            raise ValueError(f"{part.strip()} runs backwards; expected the lower number first")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _layer_list(value: Any) -> Any:
    return sorted(set(parse_numbers(value))) if isinstance(value, str) else value


class EditConfig(Section):
    alpha: FiniteNumber = 1.0
    """Share of the projection that is removed: 1 all of it, 0 none, 2 a reflection."""
    alpha_by_layer: dict[int, FiniteNumber] = {}
    """Other shares for some blocks: the block's number and its alpha."""
    layers: Annotated[list[int] | None, BeforeValidator(_layer_list)] = None
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

    layers: Annotated[list[int] | None, BeforeValidator(_layer_list)] = None
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
        return [name if name == POST_INSTRUCTION else _known_position(name) for name in names]

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

    @model_serializer(mode="wrap")
    def _without_what_does_not_vary(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs made before there were conditions have their identity still."""
        return {key: value for key, value in serialize(self).items() if key != "vary" or value}

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
    def _without_checkpoint(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Runs made before a checkpoint could be a variant have their identity still."""
        return {key: value for key, value in serialize(self).items() if (key, value) != ("checkpoint", None)}

    @model_validator(mode="after")
    def _sweep_keeps_norms_whole(self) -> "RunConfig":
        if self.edit.keep_norms and self.sweep.alphas != [1.0]:
            raise ValueError("edit.keep_norms takes alpha 1, so sweep.alphas must be 1 alone")
        return self
