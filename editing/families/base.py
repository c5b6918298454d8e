"""What a family file declares: which tensors write to the residual stream, and every other tensor by name.

Names carry `{layer}` for the block's number and `{expert}` for an expert's.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from editing.errors import EditError

ATTENTION, MLP, EMBEDDING, POSITION, BIAS = "attention", "mlp", "embedding", "position embedding", "output bias"


@dataclass(frozen=True)
class Writer:
    """A tensor whose output is added to the residual stream.

    `axis` is the tensor's axis that is the hidden size: 0 for a Linear's (hidden, input), -1 for an embedding's
    (vocabulary, hidden), a Conv1D's (input, hidden) and a bias, 1 for fused experts (experts, hidden, input). It is taken
    from the module that uses the tensor, never from the sizes, which may be equal. `gain` names the weight of a norm that
    stands between the tensor's output and the residual add; the norm multiplies by `gain_offset` + that weight.
    """

    name: str
    role: str
    axis: int = 0
    gain: str | None = None
    gain_offset: float = 0.0


@dataclass(frozen=True)
class Family:
    """The tensors of one layout. A name in neither list stops the edit: it could be a writer that nobody listed.

    `head` is the output head's name, `optional_prefix` what some checkpoints leave out before every name, `model_types`
    the `model_type`s of transformers it serves.
    """

    label: str
    model_types: tuple[str, ...]
    writers: tuple[Writer, ...]
    others: tuple[str, ...]
    head: str = "lm_head.weight"
    optional_prefix: str = ""

    def classify(self, tensor: str) -> tuple[Writer | None, int | None]:
        """The Writer that `tensor` is (None for any other known tensor) and its layer (None outside the blocks).

        Raises EditError for a tensor this family does not know.
        """
        for pattern, writer in self._patterns:
            if match := pattern.fullmatch(tensor):
                layer = match.groupdict().get("layer")
                return writer, None if layer is None else int(layer)
        raise EditError(
            f"Tensor {tensor} is unknown in family {self.label}: it might write to the residual stream, so nothing is "
            "edited. Name it in editing/families/ as a writer or as another tensor."
        )

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], Writer | None]]:
        named = [(writer.name, writer) for writer in self.writers]
        return [(self._compile(name), writer) for name, writer in [*named, *((name, None) for name in (*self.others, self.head))]]

    def _compile(self, name: str) -> re.Pattern[str]:
        text = re.escape(name).replace(r"\{layer\}", r"(?P<layer>\d+)").replace(r"\{expert\}", r"\d+")
        prefix = re.escape(self.optional_prefix)
        return re.compile(f"(?:{prefix})?{text.removeprefix(prefix)}" if prefix else text)


def linear_writers(attention: str, mlp: str) -> tuple[Writer, Writer]:
    """The two Linear output projections of an ordinary block, by module name, without a norm behind them."""
    return Writer(f"{attention}.weight", ATTENTION), Writer(f"{mlp}.weight", MLP)
