"""A checkpoint folder, read by its safetensors headers: names, shapes, byte ranges, hash. No weight is loaded here.

Refuses what it cannot edit, by name: pickles, GGUF, quantised weights, truncated or missing shards.
"""

from __future__ import annotations  # torch is named in annotations alone: opening a checkpoint does not import it

import hashlib
import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editing.errors import EditError
from editing.families import FAMILIES
from editing.header import AGAIN, TensorEntry, read_header
from editing.reading import parse_json
from editing.weight_files import INDEX_NAME, weight_files, weight_map

if TYPE_CHECKING:
    from torch import Tensor


IO_CHUNK = 1 << 18  # bytes a read or write: ten times faster here than one call of many megabytes
LAYER_KEYS, WIDTH_KEYS = ("num_hidden_layers", "n_layer"), ("hidden_size", "n_embd")
PROVENANCE = {"transformers_version", "_name_or_path", "torch_dtype", "dtype"}  # keys that say who wrote a folder, and how


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint folder.

    config: config.json.
    tensors: every tensor's entry, by name.
    left: *.safetensors beside the weights that hold nothing of the model.
    misleads_vllm: vLLM would load those too.
    """

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, TensorEntry]
    left: tuple[Path, ...] = ()
    misleads_vllm: bool = False

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type"))

    @property
    def text_config(self) -> dict[str, Any]:
        """The language model's part of config.json: all of it, or `text_config` of a model with several towers."""
        return text_config(self.config)

    @property
    def num_layers(self) -> int:
        return int(sized(self.text_config, LAYER_KEYS))

    @property
    def hidden_size(self) -> int:
        return int(sized(self.text_config, WIDTH_KEYS))

    @property
    def files(self) -> list[Path]:
        """Safetensors files, sorted by name."""
        return sorted({entry.file for entry in self.tensors.values()})

    @property
    def num_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @property
    def num_values(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(entry.shape) for entry in self.tensors.values())

    @cached_property
    def hash(self) -> str:
        """SHA-256 over config.json's settings and every tensor's name, type, shape and bytes, by name: the base's identity.

        The same however the tensors are spread over files, and whichever version of transformers wrote the folder.
        """
        total = hashlib.sha256(json.dumps(_settings(self.config), sort_keys=True).encode())
        for name, entry in sorted(self.tensors.items()):
            total.update(json.dumps([name, entry.dtype, entry.shape]).encode() + _digest(entry))
        return total.hexdigest()

    def read(self, name: str) -> Tensor:
        """One tensor, through mmap: bytes are read as they are used. Raises EditError for a damaged file."""
        from safetensors import SafetensorError, safe_open

        path = self.tensors[name].file
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError: torch opens the file once more
            raise EditError(f"{path} is not readable as safetensors ({error}). Copy or download it again.") from error


def _settings(config: Any) -> Any:
    """config.json without what depends on the library that wrote it; towers' own settings likewise."""
    if not isinstance(config, dict):
        return config
    return {key: _settings(value) for key, value in config.items() if key not in PROVENANCE}


def _digest(entry: TensorEntry) -> bytes:
    """SHA-256 of a tensor's bytes in its file."""
    total, left = hashlib.sha256(), entry.end - entry.begin
    with entry.file.open("rb", buffering=0) as stream:
        stream.seek(entry.begin)
        while left > 0 and (chunk := stream.read(min(left, IO_CHUNK))):
            total.update(chunk)
            left -= len(chunk)
    return total.digest()


def open_checkpoint(directory: Path) -> Checkpoint:
    """A checkpoint folder with config.json and safetensors, opened; no weight is read.

    Raises EditError that says what is missing or not supported.
    """
    config = _read_config(directory)
    weights = weight_files(directory)
    tensors: dict[str, TensorEntry] = {}
    for file in weights.files:
        for entry in read_header(file):
            if entry.name in tensors:
                raise EditError(f"{directory}: {entry.name} is in {tensors[entry.name].file.name} and {file.name}. {AGAIN}")
            tensors[entry.name] = entry
    _check_index(directory, tensors)
    return Checkpoint(directory, config, tensors, weights.left, weights.misleads_vllm)


def read_range(file: Path, entry: TensorEntry, into: Tensor) -> None:
    """Fill `into` with a tensor's bytes from a file of the same layout as the entry's; its header need not be there yet."""
    import torch

    data = into.flatten().view(torch.uint8).numpy().data
    with file.open("rb", buffering=0) as stream:
        stream.seek(entry.begin)
        for start in range(0, len(data), IO_CHUNK):
            if not stream.readinto(data[start : start + IO_CHUNK]):
                raise EditError(f"{file} ends in the middle of {entry.name}.")


def write_range(file: Path, entry: TensorEntry, tensor: Tensor) -> None:
    """Write a tensor over the entry's bytes of a file that exists."""
    import torch

    data = tensor.flatten().view(torch.uint8).numpy().data
    with file.open("r+b", buffering=0) as stream:
        stream.seek(entry.begin)
        write_all(stream, data)


def write_all(stream: RawIOBase, data: memoryview) -> None:
    """Write bytes in chunks, whatever share of one the system takes at a time."""
    position = 0
    while position < len(data):
        position += stream.write(data[position : position + IO_CHUNK]) or 0


def _read_config(directory: Path) -> dict[str, Any]:
    if directory.suffix == ".gguf" or (directory.is_dir() and not _has_weights(directory, "*.safetensors")):
        _refuse_other_formats(directory)
    path = directory / "config.json"
    if not path.is_file():
        raise EditError(f"{directory} is no checkpoint folder: it has no config.json. Expected config.json and *.safetensors.")
    try:
        config = parse_json(path.read_bytes())
    except ValueError as error:
        raise EditError(f"{path} is not valid JSON ({error}). Copy the model's config.json again.") from error
    _check_config(path, config)
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown method") if isinstance(quantization, dict) else "unknown method"
        raise EditError(f"{directory} is quantised ({method}). Edit the unquantised checkpoint and quantise the result.")
    return config


def _check_config(path: Path, config: Any) -> None:
    if not isinstance(config, dict):
        raise EditError(f"{path}: expected a JSON object, found {type(config).__name__}.")
    for keys in (LAYER_KEYS, WIDTH_KEYS):
        value = sized(text_config(config), keys)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            continue
        if config.get("model_type") not in FAMILIES:
            raise EditError(unknown_type(config.get("model_type")))
        raise EditError(f"{path}: {keys[0]} is {value!r}; expected a positive whole number. Copy the model's config.json again.")


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a configuration."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def sized(config: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """The first of these keys that a configuration has; None where it has none."""
    return next((config[key] for key in keys if key in config), None)


def unknown_type(model_type: Any) -> str:
    """The refusal of a model type that is in no family."""
    return (
        f"Model type '{model_type}' is not known to the editor, which knows {', '.join(sorted(FAMILIES))}. "
        "Its writers to the residual stream would be a guess; add a file to editing/families/."
    )


def _has_weights(directory: Path, pattern: str) -> bool:
    return any(directory.glob(pattern))


def _refuse_other_formats(directory: Path) -> None:
    if directory.suffix == ".gguf" or _has_weights(directory, "*.gguf"):
        raise EditError(f"{directory} is GGUF. Convert it to safetensors first (transformers: from_pretrained(gguf_file=...)).")
    if _has_weights(directory, "*.bin") or _has_weights(directory, "*.pt*"):
        raise EditError(
            f"{directory} holds pickled weights, which are not opened. Convert them to safetensors and use that folder."
        )
    raise EditError(f"{directory} holds no *.safetensors. Expected a folder with config.json and safetensors weights.")


def _check_index(directory: Path, tensors: dict[str, TensorEntry]) -> None:
    index = directory / INDEX_NAME
    if index.is_file():
        absent = sorted(set(weight_map(index)) - set(tensors))
        if absent:
            raise EditError(
                f"{index} names tensors that no shard holds: {', '.join(absent[:3])} ({len(absent)} in all). "
                "Download the shards again, or take these names out of the index."
            )


def free_bytes(directory: Path) -> int:
    """Bytes that can still be written where `directory` is or will be."""
    while not directory.exists():
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
