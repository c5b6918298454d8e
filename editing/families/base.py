"""What a family file declares: the names of writers and of every other tensor, with `{layer}` for the block's number."""

import re
from dataclasses import dataclass

from editing.errors import EditError


@dataclass(frozen=True)
class Writer:
    """A matrix whose output is added to the residual stream; rows are the hidden size. `role` is attention or mlp."""

    name: str
    role: str


@dataclass(frozen=True)
class Family:
    """The tensors of one layout. A name in neither list stops the edit: it could be a writer that nobody listed."""

    label: str
    writers: tuple[Writer, ...]
    others: tuple[str, ...]

    def classify(self, tensor: str) -> tuple[Writer | None, int | None]:
        """The Writer that `tensor` is (None for any other known tensor) and its layer (None outside the blocks).

        Raises EditError for a tensor this family does not know.
        """
        for writer in self.writers:
            if match := _match(writer.name, tensor):
                return writer, int(match["layer"])
        for name in self.others:
            if match := _match(name, tensor):
                return None, int(match["layer"]) if "layer" in match.groupdict() else None
        raise EditError(
            f"Tensor {tensor} is unknown in family {self.label}: it might write to the residual stream, so nothing is "
            "edited. Name it in editing/families/ as a writer or as another tensor."
        )


def _match(name: str, tensor: str) -> re.Match[str] | None:
    return re.fullmatch(re.escape(name).replace(r"\{layer\}", r"(?P<layer>\d+)"), tensor)
