"""Conditions of a run: the same prompts under several settings of what they are asked with (`vary`, bin/rollout --vary)."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.configs.load import changed
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.configs.schema import RunConfig

NAMES = {
    "system": "data.system",
    "template_date": "model.clock",
    **{name: f"sampling.{name}" for name in ("temperature", "top_p", "max_tokens", "thinking_tokens")},
}
"""Short names of factors. Keys of the chat template are model.chat_template_kwargs.KEY."""
KWARGS = "model.chat_template_kwargs."


@dataclass(frozen=True)
class Condition:
    """One level of every factor. label: "" where nothing varies."""

    label: str
    overrides: Mapping[str, Any]

    def applied(self, config: "RunConfig") -> "RunConfig":
        """A configuration under this condition. Raises EngineError for a value that its key does not take."""
        return changed(config, self.overrides, f"--vary {self.label}") if self.overrides else config


def conditions_of(config: "RunConfig") -> list[Condition]:
    """Every combination of the factors' levels, in order; one without a label where nothing varies."""
    if not config.vary:
        return [Condition("", {})]
    factors = [[(key, label, value) for label, value in levels.items()] for key, levels in config.vary.items()]
    return [
        Condition(", ".join(f"{_short(key)}={label}" for key, label, _ in some), {key: value for key, _, value in some})
        for some in itertools.product(*factors)
    ]


def check_one_condition(config: "RunConfig", command: str) -> None:
    """Raise EngineError for a configuration whose factors vary, in a command that asks under one condition."""
    if config.vary:
        raise EngineError(f"{command} asks its prompts in one way: vary is for bin/rollout. Leave it out.")


def key_of(name: str) -> str:
    """A factor's key of the configuration. Raises EngineError for one that is not about how prompts are asked."""
    key = NAMES.get(name, name)
    if key in NAMES.values() or (key.startswith(KWARGS) and len(key) > len(KWARGS)):
        return key
    raise EngineError(f"--vary takes {', '.join(NAMES)} or {KWARGS}KEY; found '{name}'.")


def _short(key: str) -> str:
    return next((name for name, long in NAMES.items() if long == key), key.removeprefix(KWARGS))
