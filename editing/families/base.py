"""A family's declaration: which tensors write to the residual stream, and every other tensor by name.

Names carry `{layer}` for the block's number and `{expert}` for an expert's. Knows neither checkpoints nor edits.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property

MODEL = "model."
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
    """A tensor that a family lists.

    writer: None where it does not write to the stream.
    layer: its block; None outside the blocks.
    prefix: what stands for MODEL in its name, and in those of its block.
    """

    writer: Writer | None
    layer: int | None
    prefix: str = MODEL

    @property
    def gain(self) -> str | None:
        """The checkpoint's name of the norm behind the writer; None where there is none."""
        if self.writer is None or self.writer.gain is None:
            return None
        return self.prefix + self.writer.gain.format(layer=self.layer).removeprefix(MODEL)


@dataclass(frozen=True)
class Family:
    """Every tensor of one layout, by name. A name in no list stops the edit: it could be a writer that nobody listed.

    model_types: transformers' `model_type`s with this layout.
    heads: the output head's name, and its names in other savings of the same model.
    optional_prefix: some checkpoints leave it out before every name.
    prefixes: what may stand before a text tower's names in place of `model.`.
    outside: prefixes of what is no part of the language model: other towers, and heads that predict further tokens.
    predicts_ahead: blocks behind the last one predict further tokens, and belong outside too.
    ties_by_default: transformers ties embedding and head where config.json does not say.
    text_type: `model_type` under which transformers loads the text tower alone. "" is config.json's own, None the one that
    its `text_config` names.
    """

    label: str
    model_types: tuple[str, ...]
    writers: tuple[Writer, ...]
    others: tuple[str, ...]
    heads: tuple[str, ...] = ("lm_head.weight",)
    optional_prefix: str = ""
    prefixes: tuple[str, ...] = (MODEL,)
    outside: tuple[str, ...] = ()
    predicts_ahead: bool = False
    ties_by_default: bool = False
    text_type: str | None = ""

    def classify(self, tensor: str, num_layers: int) -> KnownTensor | None:
        """What a tensor of a model with `num_layers` blocks is, by its name; None for a name that this family does not list."""
        for pattern, writer in self._patterns:
            if match := pattern.fullmatch(tensor):
                found = match.groupdict()
                layer = None if found.get("layer") is None else int(found["layer"])
                return KnownTensor(writer, layer, found.get("prefix") or "")
        ahead = self._ahead.match(tensor) if self.predicts_ahead else None
        if tensor.startswith(self.outside) or (ahead and int(ahead["layer"]) >= num_layers):
            return KnownTensor(None, None)
        return None

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], Writer | None]]:
        writers = [(self._compile(writer.name), writer) for writer in self.writers]
        return [*writers, *((self._compile(name), None) for name in (*self.others, *self.heads))]

    @cached_property
    def _ahead(self) -> re.Pattern[str]:
        return re.compile(f"(?:{'|'.join(map(re.escape, self.prefixes))})layers\\.(?P<layer>\\d+)\\.")

    def _compile(self, name: str) -> re.Pattern[str]:
        text = re.escape(name).replace(r"\{layer\}", r"(?P<layer>\d+)").replace(r"\{expert\}", r"\d+")
        if self.optional_prefix:
            prefix = re.escape(self.optional_prefix)
            return re.compile(f"(?P<prefix>(?:{prefix})?){text.removeprefix(prefix)}")
        if not name.startswith(MODEL):
            return re.compile(text)
        return re.compile(f"(?P<prefix>{'|'.join(map(re.escape, self.prefixes))}){text.removeprefix(re.escape(MODEL))}")


def in_tower(
    text: Family,
    *,
    label: str,
    model_types: tuple[str, ...],
    text_type: str | None,
    prefixes: tuple[str, ...],
    heads: tuple[str, ...],
    outside: tuple[str, ...],
) -> Family:
    """The layout of a checkpoint that holds `text` as one tower beside others; the fields are Family's."""
    named = replace(text, label=label, model_types=model_types, heads=heads, prefixes=prefixes)
    return replace(named, outside=(*text.outside, *outside), text_type=text_type)


def linear_writers(attention: str, mlp: str) -> tuple[Writer, Writer]:
    """Writers for the two Linear output projections of an ordinary block, by module name, without a norm behind them."""
    return Writer(f"{attention}.weight", ATTENTION), Writer(f"{mlp}.weight", MLP)
