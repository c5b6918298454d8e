"""Directions in the layouts of steering tools, written and read: one safetensors with a key a layer, and control-vector GGUF.

Ours number the residual stream that enters a block (resid_pre); others number block outputs, where our layer l is l - 1.
A control vector (llama.cpp) has direction.N for the output of block N from 1 on: our layers 2 to L - 1 and no others.
"""
# L = layers, H = hidden size

import json
import re
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import EngineError
from extraction.directions import Directions
from extraction.positions import LAST

RESID_PRE, BLOCK_OUTPUT = "resid_pre", "block_output"
SHIFT = {RESID_PRE: 0, BLOCK_OUTPUT: -1}  # our layer's number there
FORMAT = "refusal-layers/1"
FIRST_BLOCK = 1  # direction.0 is refused by llama.cpp
ARCHITECTURE = "controlvector"
TENSOR = re.compile(r"direction\.(\d+)")
NUMBER = re.compile(r"\d+")
LARGEST = 4096  # layers
NO_GGUF = "This needs the package gguf, which bin/setup installs with the embedded model: pip install gguf."


def write_layers(directions: Directions, out: Path, *, key: str = "layer.{layer}", numbering: str = RESID_PRE) -> list[int]:
    """Write every layer's direction, (H,) float32, not normalised, under `key`; returns the numbers. Layers without one are left.

    numbering: RESID_PRE or BLOCK_OUTPUT.
    """
    from safetensors.torch import save_file

    vectors = _there(directions.direction_LH)
    if key.count("{layer}") != 1:
        raise EngineError(f"--key takes one {{layer}}, such as layer.{{layer}}; found '{key}'.")
    tensors = {
        key.format(layer=layer + SHIFT[numbering]): vector_H
        for layer, vector_H in vectors.items()
        if layer + SHIFT[numbering] >= 0
    }
    num_layers = str(len(directions.direction_LH))
    metadata = {"format": FORMAT, "numbering": numbering, "position": directions.position, "num_layers": num_layers}
    save_file(tensors, out, metadata | {"estimator": directions.estimator})
    return sorted(int(NUMBER.findall(name)[-1]) for name in tensors)


def read_layers(file: Path, *, numbering: str | None = None, num_layers: int | None = None) -> Directions:
    """Directions of a safetensors file whose keys end in a layer's number. Layers that it lacks are zero.

    numbering: None takes the file's own, which other tools' files do not say. num_layers: L + 1; None takes the file's, else
    one above the highest. Raises EngineError for a file of another form.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - a handle, not a dict
    except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError: torch opens the file once more
        raise EngineError(f"{file} is not a readable safetensors file ({error}). Export the directions again.") from error
    said = numbering or metadata.get("numbering")
    if said not in SHIFT:
        raise EngineError(f"{file} does not say how it numbers layers. Add --numbering {RESID_PRE} or {BLOCK_OUTPUT}.")
    found = {}
    for name, tensor in tensors.items():
        numbers = NUMBER.findall(name)
        if not numbers or tensor.numel() != tensor.shape[-1] or not tensor.is_floating_point():
            raise EngineError(f"{file}: {name} is no vector under a layer's number (its shape is {tuple(tensor.shape)}).")
        found[int(numbers[-1]) - SHIFT[said]] = tensor.flatten()
    count = num_layers or int(metadata.get("num_layers", 0)) or max(found, default=0) + 1
    return _directions(file, found, count, metadata.get("position", LAST))


def write_gguf(directions: Directions, out: Path, *, model_hint: str) -> list[int]:
    """Write a control vector, direction.N (H,) float32 of the output of block N; returns the N.

    model_hint: llama.cpp's name of the architecture, such as llama. Raises EngineError without the package gguf.
    """
    gguf = _gguf()
    last = len(directions.direction_LH) - 1
    vectors = {layer - 1: vector_H for layer, vector_H in _there(directions.direction_LH).items() if 1 < layer < last}
    if not vectors:
        raise EngineError("A control vector holds layers 2 to L - 1, and none of them has a direction here.")
    writer = gguf.GGUFWriter(out, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
    writer.add_string("refusal.position", directions.position)
    writer.add_uint32("refusal.num_layers", last + 1)
    for block, vector_H in vectors.items():
        writer.add_tensor(f"direction.{block}", vector_H.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return list(vectors)


def read_gguf(file: Path, *, num_layers: int | None = None) -> Directions:
    """Directions of a control vector, of this project or of others. Layers that it lacks are zero.

    num_layers: L + 1; None takes the file's, else two above its highest block. Raises EngineError for another GGUF.
    """
    gguf = _gguf()
    try:
        reader = gguf.GGUFReader(file)
        architecture = reader.get_field("general.architecture")
        if architecture is None or architecture.contents() != ARCHITECTURE:
            raise EngineError(f"{file} is no control vector: its architecture is not '{ARCHITECTURE}'.")
        found = {}
        for tensor in reader.tensors:
            match = TENSOR.fullmatch(tensor.name)
            if match is None or int(match[1]) < FIRST_BLOCK or tensor.tensor_type.name != "F32":
                raise EngineError(
                    f"{file}: expected direction.N in F32 from N = 1 on, found {tensor.name} in {tensor.tensor_type.name}."
                )
            found[int(match[1]) + 1] = torch.from_numpy(tensor.data.copy()).flatten()
        said = {name: reader.get_field(f"refusal.{name}") for name in ("num_layers", "position")}
    except (ValueError, OSError, IndexError, KeyError, OverflowError) as error:
        raise EngineError(f"{file} is not a readable GGUF file ({type(error).__name__}: {error}).") from error
    own = {name: field.contents() for name, field in said.items() if field is not None}
    count = num_layers or int(own.get("num_layers", 0)) or max(found, default=0) + 2
    return _directions(file, found, count, str(own.get("position", LAST)))


def metadata_of(base_hash: str | None) -> dict[str, str]:
    """The metadata with which read directions are saved as a file of ours."""
    return {} if base_hash is None else {"base_hash": base_hash}


def _gguf():  # type: ignore[no-untyped-def]
    try:
        import gguf
    except ImportError as error:
        raise EngineError(NO_GGUF) from error
    return gguf


def _there(direction_LH: Tensor) -> dict[int, Tensor]:
    """The directions that are not zero, by layer, float32."""
    return {layer: row.float().contiguous() for layer, row in enumerate(direction_LH) if bool(row.any())}


def _directions(file: Path, found: dict[int, Tensor], count: int, position: str) -> Directions:
    """Directions whose answered mean is zero: what a file gives is the difference alone."""
    widths = {len(vector) for vector in found.values()}
    if len(widths) != 1 or not 0 < count <= LARGEST or min(found) < 0 or max(found) >= count:
        raise EngineError(
            f"{file} holds layers {json.dumps(sorted(found)[:8])} of widths {sorted(widths)}; expected one width and layers 0 to "
            f"{count - 1}. Another numbering is --numbering, another number of layers --like MODEL."
        )
    declined_LH = torch.zeros(count, widths.pop(), dtype=torch.float64)
    for layer, vector_H in found.items():
        declined_LH[layer] = vector_H.double()
    if not bool(declined_LH.isfinite().all()):
        raise EngineError(f"{file} holds NaN or infinity.")
    return Directions(declined_LH, torch.zeros_like(declined_LH), 0, position)
