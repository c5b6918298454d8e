"""Which files of a folder hold the weights: decided once, by the rule that transformers and vLLM both follow.

transformers opens model.safetensors, else what model.safetensors.index.json names. vLLM takes what the index names, else
every *.safetensors. A folder where the two would open different weights is refused, or its spare files are left aside.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from editing.errors import EditError

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
    try:
        found = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EditError(f"{index} has no readable weight_map. Download it again.") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) and Path(name).name == name for name in found.values()):
        raise EditError(f"{index}: weight_map must give each tensor a file of this folder. Download it again.")
    return found
