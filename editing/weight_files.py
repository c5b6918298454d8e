"""Which files of a folder hold the weights: decided once, by the rule that transformers and vLLM both follow.

transformers opens model.safetensors, else what model.safetensors.index.json names. vLLM takes what the index names, else
every *.safetensors. A folder where the two would open different weights is refused, or its spare files are left aside.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editing.errors import EditError
from editing.reading import read_object

SINGLE_NAME, INDEX_NAME = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class WeightFiles:
    """Files with a model's weights, sorted by name.

    left: other *.safetensors beside them, which hold nothing of the model.
    misleads_vllm: vLLM would load those too; it has to be given a folder without them.
    """

    files: tuple[Path, ...]
    left: tuple[Path, ...]

    @property
    def misleads_vllm(self) -> bool:
        return bool(self.left) and not (self.files[0].parent / INDEX_NAME).is_file()


def weight_files(directory: Path) -> WeightFiles:
    """The weights of a folder. Raises EditError where files are missing, or where loaders would disagree about them."""
    single, index = directory / SINGLE_NAME, directory / INDEX_NAME
    named = sorted(set(weight_map(index).values())) if index.is_file() else []
    if single.is_file() and named not in ([], [SINGLE_NAME]):
        raise EditError(
            f"{directory} holds {SINGLE_NAME} and {INDEX_NAME}, which names {named[0]}: transformers opens the one, vLLM the "
            "other. Move the stale one away."
        )
    chosen = named or ([SINGLE_NAME] if single.is_file() else [])
    there = sorted(file for file in directory.glob("*.safetensors") if not file.name.startswith("."))
    if not chosen:
        raise EditError(
            f"{directory} holds {there[0].name}, and neither {SINGLE_NAME} nor {INDEX_NAME}, by which loaders find the weights. "
            "Copy the whole folder again."
        )
    if missing := [name for name in chosen if not (directory / name).is_file()]:
        raise EditError(f"{directory}: the index names {len(chosen)} shards; missing: {', '.join(missing)}. Download them.")
    return WeightFiles(tuple(directory / name for name in chosen), tuple(file for file in there if file.name not in chosen))


def weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor, as an index names it. Raises EditError for an index of another form."""
    found = read_object(index, "Download it again.").get("weight_map")
    if not isinstance(found, dict) or not found or not all(map(_is_file_name, found.values())):
        raise EditError(f"{index} has no weight_map of tensor names and file names. Download it again.")
    return found


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < 256 and not {"/", "\0"} & set(value)
