"""What it takes to make an edited folder again, for its edit.json: settings, and the hashes of what they were applied to.

No path of this machine is in it: a file of prompts goes by its name and hash.
"""

from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.paths import file_hash, user_path
from engine.runs.inputs import RunInputs

FORMAT = "refusal-recipe/1"
SETTINGS: dict[str, set[str]] = {
    "model": {"dtype", "chat_template", "chat_template_kwargs", "clock"},
    "data": {"train_pairs", "pair_columns", "num_pairs", "kinds", "split", "hold_out"},
    "directions": {"layers", "k", "position", "estimator"},
    "edit": {"alpha", "alpha_by_layer", "layers", "embeddings", "biases", "untie", "keep_norms"},
    "sweep": {"seed"},
}
FILES = (("model", "chat_template"), ("data", "train_pairs"))
AGAIN = "Write the edit again with this version's bin/edit."


def recipe_of(session: RunInputs, directions: Path | None) -> dict[str, Any]:
    """The fields `recipe`, `data_hashes` and `directions_hash` of an edit.json; `directions` is the file that was used."""
    table = session.config.model_dump(mode="json", include=SETTINGS)
    for section, key in FILES:
        value = table[section].get(key)
        if isinstance(value, str) and user_path(value).is_file():
            table[section][key] = Path(value).name
    hashes = session.identity["data_hashes"]
    return {
        "recipe": {"format": FORMAT, "given": session.config.directions.file is not None, **table},
        "data_hashes": {"train_pairs": hashes["train_pairs"]},
        "rendering_hashes": session.identity["rendering_hashes"],
        "directions_hash": None if directions is None else file_hash(directions),
    }


def check_recipe(record: dict[str, Any], where: Path) -> dict[str, Any]:
    """The recipe of a record. Raises EngineError where it has none, as folders of earlier versions, or one of another form."""
    recipe = record.get("recipe")
    hashes = record.get("data_hashes")
    if not isinstance(recipe, dict) or recipe.get("format") != FORMAT or not isinstance(hashes, dict):
        raise EngineError(f"{where} does not say what its directions were made of: it has no recipe of {FORMAT}. {AGAIN}")
    if missing := [name for name in SETTINGS if not isinstance(recipe.get(name), dict)]:
        raise EngineError(f"{where}: its recipe has no table '{missing[0]}'. {AGAIN}")
    return recipe
