"""A mapping from (variant_hash, prompt_id), a dictionary for each variant: a key costs no tuple and no string of its own."""

import sys
from collections.abc import Iterator, MutableMapping, Sequence
from typing import TypeVar

Key = tuple[str, str]
Value = TypeVar("Value")


class Keyed(MutableMapping[Key, Value]):
    """Values by (variant_hash, prompt_id); each prompt's id is held once."""

    def __init__(self) -> None:
        self._variants: dict[str, dict[str, Value]] = {}

    def put(self, variants: Sequence[str], prompts: Sequence[str], values: Sequence[Value]) -> None:
        """Set many: the keys' two columns and their values, of one length."""
        for variant, prompt, value in zip(variants, prompts, values, strict=True):
            self[variant, prompt] = value

    def __getitem__(self, key: Key) -> Value:
        return self._variants[key[0]][key[1]]

    def __setitem__(self, key: Key, value: Value) -> None:
        variant = self._variants.get(key[0])
        if variant is None:
            variant = self._variants.setdefault(key[0], {})
        variant[sys.intern(key[1])] = value

    def __delitem__(self, key: Key) -> None:
        del self._variants[key[0]][key[1]]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and key[1] in self._variants.get(key[0], ())

    def __iter__(self) -> Iterator[Key]:
        return ((variant, prompt) for variant, prompts in self._variants.items() for prompt in prompts)

    def __len__(self) -> int:
        return sum(map(len, self._variants.values()))

    def by_prompt(self) -> Iterator[Key]:
        """The keys in order of prompt, then variant."""
        prompts = sorted({prompt for variant in self._variants.values() for prompt in variant})
        variants = sorted(self._variants)
        return ((variant, prompt) for prompt in prompts for variant in variants if prompt in self._variants[variant])
