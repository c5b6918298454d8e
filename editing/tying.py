"""Whether embedding and output head are one matrix: decided once, from config.json and the tensors, as loaders decide it.

transformers and vLLM tie where config.json says so and the head is absent or equals the embedding. Where it says so and
the head is another matrix, new versions untie and older ones overwrite it, so such a folder is refused.
"""

from dataclasses import dataclass

from editing.checkpoint import IO_CHUNK, Checkpoint, TensorEntry
from editing.errors import EditError
from editing.families import Family
from editing.families.base import EMBEDDING

KEY = "tie_word_embeddings"


@dataclass(frozen=True)
class Head:
    """The output head. name: its tensor; None where the checkpoint has none. tied: it is the embedding."""

    name: str | None
    tied: bool


def head_of(checkpoint: Checkpoint, family: Family) -> Head:
    """A checkpoint's head. Raises EditError where config.json and the tensors contradict each other."""
    name = next((name for name in family.heads if name in checkpoint.tensors), None)
    said = checkpoint.config.get(KEY, checkpoint.text_config.get(KEY))
    tie = family.ties_by_default if said is None else bool(said)
    where = f"{checkpoint.directory}/config.json"
    if name is None:
        if said is False:
            raise EditError(f"{where} says {KEY} = false, and there is no {family.heads[0]}. Set it to true, or add the head.")
        return Head(None, tied=True)
    if not tie:
        return Head(name, tied=False)
    embedding = embedding_name(checkpoint, family)
    if _equal(checkpoint.tensors[name], checkpoint.tensors[embedding]):
        return Head(name, tied=True)
    if said:
        raise EditError(
            f"{where} says that embedding and head are one ({KEY}), and {name} differs from {embedding}. "
            f'Write "{KEY}": false there to keep this head, or remove the tensor.'
        )
    return Head(name, tied=False)  # only the type's default would tie them, and no loader follows it then


def embedding_name(checkpoint: Checkpoint, family: Family) -> str:
    """Name of the checkpoint's one embedding. Raises EditError where there is none, or several."""
    known = {name: family.classify(name, checkpoint.num_layers) for name in checkpoint.tensors}
    found = [name for name, tensor in known.items() if tensor and tensor.writer and tensor.writer.role == EMBEDDING]
    if len(found) != 1:
        raise EditError(f"{checkpoint.directory}: expected one embedding, found {len(found)}. The checkpoint is incomplete.")
    return found[0]


def _equal(one: TensorEntry, other: TensorEntry) -> bool:
    """The same bytes; read in pieces, and only up to the first difference."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with one.file.open("rb") as left, other.file.open("rb") as right:
        left.seek(one.begin)
        right.seek(other.begin)
        for start in range(one.begin, one.end, IO_CHUNK):
            size = min(IO_CHUNK, one.end - start)
            if left.read(size) != right.read(size):
                return False
    return True
