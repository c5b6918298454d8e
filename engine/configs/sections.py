"""What every section of a configuration is made of, and the sections that say what is read: model, data, directions."""

import math
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
from extraction.positions import check_position


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
        return known_position(name)

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


def known_position(name: str) -> str:
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


def layer_list(value: Any) -> Any:
    return sorted(set(parse_numbers(value))) if isinstance(value, str) else value
