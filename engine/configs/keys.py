"""Every key of a variant's file with its sentence, its default and where its value comes from; and a file that holds them all."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.configs.load import find_config, flatten, read_chain
from engine.configs.schema import RunConfig
from engine.configs.vllm_keys import nearest
from engine.errors import EngineError

DEFAULT, FLAG, UNSET = "default", "flag", "not set"
LEFT_OUT = ("variant", "published")  # said by a file's name; the study's own figures
WIDTH = 100


@dataclass(frozen=True)
class Key:
    """One dotted key: its value as TOML, its default as TOML ("" where there is none), whence the value is, what it means."""

    name: str
    value: str
    default: str
    source: str
    meaning: str


def keys_of(config: RunConfig, sources: Mapping[str, str]) -> list[Key]:
    """Every key of a configuration, in the order of the schema. `sources` names where the keys that are given come from."""
    shown = config.model_dump(mode="json")
    found = [_key(name, section, field, shown, sources) for name, section, field in _fields()]
    passed = [
        Key(f"vllm.{name}", toml_value(value), "", _source(f"vllm.{name}", sources), "") for name, value in config.vllm.items()
    ]
    return [key for key in found if key.name != "vllm" or not passed] + passed


def sources_of(variant: str | None, overrides: Mapping[str, Any]) -> dict[str, str]:
    """Where each key that is given comes from: a flag, or the file of the chain of `extends` that has the last word."""
    found: dict[str, str] = {}
    for file, table in reversed(read_chain(find_config(variant))) if variant is not None else []:
        found |= dict.fromkeys(flatten(table), file.name)
    return found | dict.fromkeys(overrides, FLAG)


def chosen_keys(keys: Sequence[Key], asked: Sequence[str]) -> list[Key]:
    """The keys that are asked for by name or by section; all where none is. Raises EngineError with the nearest name."""
    for name in asked:
        if not any(_is_of(key.name, name) for key in keys):
            raise EngineError(f"There is no key '{name}'. {nearest(name, [key.name for key in keys])}")
    return [key for key in keys if not asked or any(_is_of(key.name, name) for name in asked)]


def annotated_toml(config: RunConfig, given: Iterable[str], heading: str) -> str:
    """A variant's file: the keys that are given, every other as a comment with its default, each below its sentence."""
    keys = {key.name: key for key in keys_of(config, dict.fromkeys(given, FLAG))}
    lines = [f"# {line}" for line in textwrap.wrap(heading, WIDTH)]
    for section, names in _by_section(keys):
        lines += ["", f"[{section}]"] if section else [""]
        for name in names:
            key = keys[name]
            lines += [f"# {line}" for line in textwrap.wrap(key.meaning, WIDTH)]
            short = name.rpartition(".")[2]
            is_given = key.source == FLAG
            lines += [f"{short} = {key.value}" if is_given else f"# {short} = {key.default or key.value}"]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A value as TOML writes it; `not set` for None, which TOML has no word for."""
    if value is None:
        return UNSET
    import tomli_w

    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(key)} = {toml_value(part)}" for key, part in value.items()) + "}"
    text = tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
    return " ".join(text.split()).replace("[ ", "[").replace(", ]", "]")


def _quoted(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else toml_value(key)


def _fields() -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, section's class and field of every key."""
    for name, field in RunConfig.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        if name in LEFT_OUT:
            continue
        if inner is None:
            yield name, RunConfig, field
        else:
            yield from ((f"{name}.{part}", field.annotation, inner[part]) for part in inner)


def _key(name: str, section: Any, field: Any, shown: Mapping[str, Any], sources: Mapping[str, str]) -> Key:
    value: Any = shown
    for part in name.split("."):
        value = value[part] if part in value else field.get_default(call_default_factory=True)
    default = "" if field.is_required() else toml_value(_plain(field.get_default(call_default_factory=True)))
    return Key(name, toml_value(value), default, _source(name, sources), " ".join((field.description or "").split()))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _source(name: str, sources: Mapping[str, str]) -> str:
    return next((where for key, where in sources.items() if _is_of(key, name)), DEFAULT)


def _is_of(name: str, asked: str) -> bool:
    return name == asked or name.startswith(f"{asked}.")


def _by_section(names: Sequence[str] | Mapping[str, Key]) -> list[tuple[str, list[str]]]:
    """Keys without a section first, as TOML wants them."""
    sections: dict[str, list[str]] = {"": []}
    for name in names:
        if name in ("vllm",):
            continue
        section, _, _ = name.rpartition(".")
        sections.setdefault(section, []).append(name)
    return [(section, found) for section, found in sections.items() if found]
