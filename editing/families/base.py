"""A family's declaration: which tensors write to the residual stream, and every other tensor by name.

Names carry `{layer}` for the block's number and `{expert}` for an expert's. Knows neither checkpoints nor edits.
"""

import re
from dataclasses import dataclass
from functools import cached_property

ATTENTION, MLP, EMBEDDING, POSITION, BIAS = "attention", "mlp", "embedding", "position embedding", "output bias"


@dataclass(frozen=True)
class Writer:
    """A tensor whose output is added to the residual stream.

    axis: the tensor's axis that is the hidden size. 0 for a Linear's (hidden, input). -1 for an embedding's (vocabulary,
    hidden), a Conv1D's (input, hidden) and a bias. 1 for fused experts (experts, hidden, input). It is taken from the module
    that uses the tensor, never from the sizes, which may be equal.
    gain: the name of the weight of a norm between the tensor's output and the residual add; None where there is none.
    gain_offset: the norm multiplies by this plus that weight.
    """

    name: str
    role: str
    axis: int = 0
    gain: str | None = None
    gain_offset: float = 0.0


@dataclass(frozen=True)
class KnownTensor:
    """A tensor that a family lists: its Writer, None where it does not write, and its block, None outside the blocks."""

    writer: Writer | None
    layer: int | None


@dataclass(frozen=True)
class Family:
    """Every tensor of one layout, by name. A name in neither list stops the edit: it could be a writer that nobody listed.

    head: the output head's name.
    optional_prefix: some checkpoints leave it out before every name.
    model_types: transformers' `model_type`s with this layout.
    """

    label: str
    model_types: tuple[str, ...]
    writers: tuple[Writer, ...]
    others: tuple[str, ...]
    head: str = "lm_head.weight"
    optional_prefix: str = ""

    def classify(self, tensor: str) -> KnownTensor | None:
        """The Writer and the block of a tensor, by its name; None for a name that this family does not list."""
        for pattern, writer in self._patterns:
            if match := pattern.fullmatch(tensor):
                layer = match.groupdict().get("layer")
                return KnownTensor(writer, None if layer is None else int(layer))
        return None

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], Writer | None]]:
        named = [(writer.name, writer) for writer in self.writers]
        return [(self._compile(name), writer) for name, writer in [*named, *((name, None) for name in (*self.others, self.head))]]

    def _compile(self, name: str) -> re.Pattern[str]:
        text = re.escape(name).replace(r"\{layer\}", r"(?P<layer>\d+)").replace(r"\{expert\}", r"\d+")
        prefix = re.escape(self.optional_prefix)
        return re.compile(f"(?:{prefix})?{text.removeprefix(prefix)}" if prefix else text)


def linear_writers(attention: str, mlp: str) -> tuple[Writer, Writer]:
    """Writers for the two Linear output projections of an ordinary block, by module name, without a norm behind them."""
    return Writer(f"{attention}.weight", ATTENTION), Writer(f"{mlp}.weight", MLP)
