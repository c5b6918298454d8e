"""Reads configs/*.toml: `extends`, flags over files, and errors that name the nearest known key."""

import difflib
import functools
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.configs.vllm_keys import check_vllm_keys, nearest
from engine.errors import EngineError
from engine.paths import CONFIG_DIR, user_path

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from engine.configs.schema import ModelConfig, RunConfig


# The keys that name a file or folder.
PATHS = (
    ("model", "path"),
    ("model", "chat_template"),
    ("data", "train_pairs"),
    ("data", "selection_pairs"),
    ("data", "test_requests"),
    ("data", "test_answerable"),
    ("data", "unrelated"),
    ("directions", "file"),
    ("judge", "name"),
    ("variant", "checkpoint"),
    ("local", "model", "path"),
    ("classifier", "model", "path"),
)


def load_config(variant: str | None, overrides: Mapping[str, Any] | None = None) -> "RunConfig":
    """The validated configuration of a variant: a name in configs/, or the path of a TOML file; None for a model without one.

    `overrides` maps dotted keys ("directions.layers") to values and wins over the file.
    """
    if variant is None:
        return load_without_file(overrides or {})
    path = find_config(variant)
    table = read_extended(path)
    for key, value in (overrides or {}).items():
        set_key(table, key.split("."), value)
    _take_checkpoint(table, path.name)
    table.setdefault("variant", path.stem)
    return validate(table, path.name)


def _take_checkpoint(table: dict[str, Any], where: str) -> None:
    """`[variant] checkpoint = DIR` as the keys that RunConfig has: such a variant has no directions of its own."""
    if not isinstance(given := table.get("variant"), dict):
        return
    if unknown := sorted(given.keys() - {"checkpoint", "name"}) or ([] if "checkpoint" in given else ["(empty)"]):
        raise EngineError(f"{where}: [variant] has the key {unknown[0]}; expected checkpoint = FOLDER, and name.")
    del table["variant"]
    table.setdefault("checkpoint", given["checkpoint"])  # a flag goes before the file
    table |= {"variant": given["name"]} if "name" in given else {}
    table.setdefault("directions", {"layers": "sweep"})


def load_without_file(overrides: Mapping[str, Any], where: str = "the command line") -> "RunConfig":
    """A configuration of a model that has no file in configs/: what the flags say, the rest by default, layers to be found.

    `where` is how errors name the place that the values come from.
    """
    path = overrides.get("model.path")
    if path is None:
        raise EngineError(f"Name a variant with --variant, or a model with --model. Variants: {', '.join(variant_names())}.")
    table: dict[str, Any] = {"variant": model_label(str(path)), "directions": {"layers": "sweep"}}
    for key, value in overrides.items():
        set_key(table, key.split("."), value)
    return validate(table, where)


def model_label(path: str) -> str:
    """A short name of a model: the last part of its path or repository, as a file may be called."""
    last = path.rstrip("/").rsplit("/", 1)[-1].removeprefix("embedded:")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._") or "model"


def load_model(model: str, overrides: Mapping[str, Any]) -> "ModelConfig":
    """The model of a variant in configs/, or a folder, repository or embedded model by itself."""
    if model.endswith(".toml") or model in variant_names():
        return load_config(model, overrides).model
    path = Path(model).expanduser()
    return load_without_file({"model.path": str(path.resolve()) if path.exists() else model, **overrides}).model


def changed(config: "RunConfig", overrides: Mapping[str, Any], where: str) -> "RunConfig":
    """A configuration with other values of some dotted keys, validated again; errors name them by `where`."""
    table = config.model_dump()
    for key, value in overrides.items():
        set_key(table, key.split("."), value)
    return validate(table, where)


def validate(table: dict[str, Any], where: str) -> "RunConfig":
    """A table as RunConfig. Raises EngineError with every problem on a line of its own."""
    from pydantic import ValidationError

    from engine.configs.schema import RunConfig

    try:
        config = RunConfig.model_validate(table)
    except ValidationError as error:
        raise EngineError("\n".join(f"{where}: {line}" for line in explain(error, RunConfig))) from error
    check_vllm_keys(config.vllm, where)
    return config


def find_config(variant: str) -> Path:
    """The TOML file of a variant; an unknown name is an error with the nearest names."""
    beside = Path(f"{variant}.toml")
    if variant.endswith(".toml") or (variant not in variant_names() and beside.is_file()):
        path = Path(variant) if variant.endswith(".toml") else beside
        if not path.is_file():
            raise EngineError(f"Configuration file {variant} does not exist.")
        return path
    names = variant_names()
    if variant not in names:
        near = difflib.get_close_matches(variant, names, n=3, cutoff=0.4)
        hint = f"Nearest: {', '.join(near)}." if near else f"There are: {', '.join(names)}."
        raise EngineError(f"Unknown variant '{variant}': there is no configs/{variant}.toml. {hint}")
    return CONFIG_DIR / f"{variant}.toml"


def variant_names() -> list[str]:
    """Every variant in configs/, sorted."""
    return sorted(path.stem for path in CONFIG_DIR.glob("*.toml"))


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ between two nested tables, as `key: old -> new`."""
    flat_old, flat_new = flatten(old), flatten(new)
    keys = sorted(flat_old.keys() | flat_new.keys())
    unset = "not set"
    return [
        f"{key}: {flat_old.get(key, unset)!r} -> {flat_new.get(key, unset)!r}"
        for key in keys
        if flat_old.get(key, unset) != flat_new.get(key, unset)
    ]


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat


def read_extended(path: Path) -> dict[str, Any]:
    """A TOML file over what it extends."""
    first, *others = (table for _, table in read_chain(path))
    below = [{key: value for key, value in table.items() if key != "variant"} for table in reversed(others)]
    return functools.reduce(_merge, [*below, first])


def read_chain(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """A TOML file, the one that it extends, and so on, each with its own keys; paths in them are absolute."""
    try:
        path = path.resolve()
        is_there = path.is_file()
    except (OSError, ValueError) as error:  # too long, or with a NUL
        raise EngineError(f"{str(path)[:80]!r} is no path of a TOML file ({error}).") from error
    if path in seen:
        raise EngineError(f"{path.name} extends itself through {' -> '.join(other.name for other in seen)}.")
    if not is_there:
        raise EngineError(f"{seen[-1].name} extends {path}, which does not exist.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # broken TOML, what is no UTF-8, numbers of thousands of digits, deep nesting
        raise EngineError(f"{path.name} is not valid TOML in UTF-8: {error}.") from error
    _resolve_paths(table, path)
    base = table.pop("extends", None)
    if not isinstance(base, str | None):
        raise EngineError(f"{path.name}: extends = {base!r}; expected the path of a TOML file.")
    return [(path, table), *([] if base is None else read_chain(path.parent / base, (*seen, path)))]


def _resolve_paths(table: Mapping[str, Any], file: Path) -> None:
    """Make a file's paths absolute: they are relative to the file, wherever a command is called from.

    Raises EngineError for one that exists only from the current folder.
    """
    for *sections, key in PATHS:
        part: Any = table
        for section in sections:
            part = part.get(section, {}) if isinstance(part, Mapping) else {}
        value = part.get(key) if isinstance(part, dict) else None
        if (
            not isinstance(value, str)
            or value.startswith(("embedded:", "~", "/"))
            or "{" in value
            or (key == "name" and "." not in value)
        ):
            continue
        if (file.parent / value).exists():
            part[key] = str((file.parent / value).resolve())
        elif Path(value).exists():
            raise EngineError(
                f"{file.name}: {'.'.join([*sections, key])} = {value!r} exists in the current folder and not beside the file. A "
                f"path in a file is relative to it ({file.parent}); give the path from there, or an absolute one."
            )


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def set_key(table: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise EngineError(f"--set {'.'.join(keys)}: '{key}' is a value, not a table, so it has no '{keys[-1]}'.")
    table[keys[-1]] = value


def explain(error: "ValidationError", root: "type[BaseModel]") -> list[str]:
    """A line for each problem of a table that should have been a `root`."""
    lines = []
    for problem in error.errors():
        location = [part for part in problem["loc"] if isinstance(part, str) and not part.startswith(("list[", "literal["))]
        key = ".".join(location)
        if problem["type"] == "extra_forbidden":
            lines.append(f"unknown key '{key}'. {_nearest_key(location, root)}")
        elif problem["type"] == "missing":
            lines.append(f"key '{key}' is missing.")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            found = re.sub(r"//[^/@\s]+@", "//...@", repr(problem["input"]))  # a URL's password is not repeated
            secret = key.endswith("api_key_env")  # a key that was put in the place of its variable's name
            about = f"{key}: " if secret else f"{key} = {found}: " if key else ""
            lines.append(f"{about}{message[0].lower()}{message[1:]}.")
    return lines


def _nearest_key(location: list[str], root: "type[BaseModel]") -> str:
    from pydantic import BaseModel

    section = root
    for part in location[:-1]:
        if part not in section.model_fields:
            break  # a key of a free table, such as a price's model
        annotation = section.model_fields[part].annotation
        candidates = getattr(annotation, "__args__", (annotation,))
        section = next((item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)), section)
    return nearest(location[-1], list(section.model_fields))


def config_toml(config: "RunConfig", changed: Mapping[str, Any] | None = None) -> str:
    """A configuration as the TOML that `load_config` takes from any folder: paths are absolute.

    `changed` replaces whole tables. The name, the study's figures and the sweep's settings are left out.
    """
    import tomli_w

    table = config.model_dump(mode="json", exclude_none=True, exclude={"variant", "published", "sweep"})
    for section, *_, key in PATHS:
        value = table.get(section, {}).get(key)
        if isinstance(value, str) and user_path(value).exists():
            table[section][key] = str(user_path(value).absolute())
    return tomli_w.dumps(table | dict(changed or {}))
