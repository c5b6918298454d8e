"""Writers to the residual stream by model family, one file a family.

A file NAME.py of this folder defines the Family in a constant of its own name in capitals: gpt_neox.py has GPT_NEOX.
`FAMILIES` maps transformers' `model_type` to its Family. A model type that is not here is refused: nothing is guessed.
"""

import importlib
import pkgutil

from editing.families.base import Family, Writer

BASE = "base"  # the one file that is no family


def find_families() -> dict[str, Family]:
    """The Family of each model type, from every file of this folder."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != BASE)
    found = [getattr(importlib.import_module(f"{__name__}.{name}"), name.upper()) for name in names]
    return {model_type: family for family in found for model_type in family.model_types}


FAMILIES = find_families()

__all__ = ["FAMILIES", "Family", "Writer", "find_families"]
