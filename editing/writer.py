"""Writes an edited checkpoint: the base's bytes, with the edited tensors' byte ranges replaced, then one rename.

An edit keeps every shape and dtype, so headers, index and all other bytes stay as they are. Threads copy the untouched
ranges and edit the others side by side: a tensor a thread is in memory, never a model. What was written is read back and
proven before the rename. Until then the work is in a temporary folder beside the target, which any failure removes.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editing.apply import edited_tensor
from editing.checkpoint import IO_CHUNK, Checkpoint, free_bytes, open_checkpoint, write_all, write_range
from editing.errors import EditError
from editing.folder import BASIS_FILE, EDIT_FILE, REPORT_FILE, check_free, new_folder, save_edit
from editing.plan import EditPlan, PlannedTensor
from editing.projection import Edit, check_edit
from editing.proof import Proof, prove_tensor
from editing.untie import untie_head

CARRIED_NOT = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data")
COPY_CHUNK = 64 << 20


def write_edited(
    checkpoint: Checkpoint,
    plan: EditPlan,
    edit: Edit,
    out: Path,
    *,
    record: Mapping[str, Any],
    card: Callable[[list[Proof]], str],
    on_tensor: Callable[[str], None] = lambda name: None,
    make: Callable[[PlannedTensor, Tensor], Tensor] | None = None,
) -> list[Proof]:
    """Write the edited checkpoint to `out`, a folder that does not exist yet; returns the proof of every edited tensor.

    record: the fields of edit.json.
    card: makes README.md from the proofs.
    on_tensor: called with each edited tensor's name.
    make: computes an edited tensor, given memory for it, in another way than folding (merging an adapter).
    Raises EditError for an unfit basis, an existing folder, an output inside the base, or too little space. A tensor that still
    writes the direction after it was written is an EditError too. Nothing is left behind.
    """
    check_edit(edit, checkpoint.hidden_size)
    check_output(checkpoint, out)
    with new_folder(out) as temporary:
        for name, file in carried_files(checkpoint.directory).items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, temporary / name)
        job = _Job(
            checkpoint,
            edit,
            temporary,
            make or (lambda tensor, scratch: edited_tensor(checkpoint, tensor, edit, scratch)),
            on_tensor,
        )
        proofs = _write_weights(job, plan)
        written = {file.name: (temporary / file.name).stat() for file in checkpoint.files}
        if plan.scope.untie:
            untie_head(checkpoint, temporary)
        _check_opened(checkpoint, plan, temporary, written)
        (temporary / REPORT_FILE).write_text(json.dumps([vars(proof) for proof in proofs], indent=1) + "\n")
        save_edit(temporary, edit, record, card(proofs))
    return proofs


def _check_opened(checkpoint: Checkpoint, plan: EditPlan, folder: Path, written: Mapping[str, os.stat_result]) -> None:
    """Raise EditError unless the folder, opened as a loader opens it, holds every edited tensor where it was proven."""
    opened = open_checkpoint(folder).tensors
    for tensor in plan.edited:
        proven, found = checkpoint.tensors[tensor.name], opened.get(tensor.name)
        same_file = found is not None and os.path.samestat(found.file.stat(), written[proven.file.name])
        if found is None or not same_file or replace(found, file=proven.file) != proven:
            raise EditError(
                f"{tensor.name} was edited in {proven.file.name}, and a loader would take it from "
                f"{found.file.name if found else 'nowhere'}. The base's index misleads: download the base again."
            )


def check_output(checkpoint: Checkpoint, out: Path) -> None:
    """Raise EditError unless `out` is free, outside the base folder, and on a disk with room for the checkpoint."""
    check_free(out)
    base = checkpoint.directory.resolve()
    if base == out.resolve() or base in out.resolve().parents:
        raise EditError(f"Output folder {out} lies inside the base checkpoint {base}. Choose another with --out.")
    free = free_bytes(out)
    if free < checkpoint.num_bytes:
        raise EditError(
            f"No room for {out}: {checkpoint.num_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free. "
            "Free some space or choose another disk with --out."
        )


def carried_files(directory: Path) -> dict[str, Path]:
    """Files that an edited checkpoint takes over from its base, by their paths there, those of subfolders too.

    Left out: weights in any form, hidden files, and the record of an edit that made the base. Raises EditError for a link to a
    file outside the folder: its content would go wherever the checkpoint goes.
    """
    carried = {}
    inside = (directory.resolve(), (directory / "config.json").resolve().parent)  # a hub's cache keeps the files elsewhere
    for file in sorted(directory.rglob("*")):
        name = file.relative_to(directory)
        ours = name.as_posix() in (EDIT_FILE, REPORT_FILE) or name.parts[0] == Path(BASIS_FILE).parts[0]
        if file.is_file() and file.suffix not in CARRIED_NOT and not ours and not any(p.startswith(".") for p in name.parts):
            if not any(file.resolve().is_relative_to(folder) for folder in inside):
                raise EditError(
                    f"{file} is a link out of the folder, to {file.resolve()}. Put the file in its place, or remove it."
                )
            carried["BASE_README.md" if name == Path("README.md") else name.as_posix()] = file
    return carried


def left_out(checkpoint: Checkpoint) -> list[str]:
    """Weights of the base's folder that an edited checkpoint does not take over, by their paths: copies in other forms."""
    own = set(checkpoint.files)
    files = sorted(file for file in checkpoint.directory.rglob("*") if file.suffix in CARRIED_NOT and file not in own)
    return [file.relative_to(checkpoint.directory).as_posix() for file in files]


@dataclass(frozen=True)
class _Job:
    checkpoint: Checkpoint
    edit: Edit
    target: Path
    make: Callable[[PlannedTensor, Tensor], Tensor]
    on_tensor: Callable[[str], None]


def _write_weights(job: _Job, plan: EditPlan) -> list[Proof]:
    """Copy and edit side by side; the first failure stops the rest."""
    tensors = {tensor.name: tensor for tensor in plan.edited}
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are the parallelism
    try:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            jobs: list[Future[Proof | None]] = []
            for source in job.checkpoint.files:
                _allocate(job.target / source.name, source.stat().st_size)
                for begin, end in _untouched(job.checkpoint, source, tensors):
                    jobs.append(pool.submit(_copy_range, source, job.target / source.name, begin, end))
            jobs += [pool.submit(_edit_one, job, tensor) for tensor in tensors.values()]
            try:
                proofs = [proof for done in as_completed(jobs) if (proof := done.result()) is not None]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(before)
    places = {name: place for place, name in enumerate(tensors)}
    return sorted(proofs, key=lambda proof: places[proof.tensor])


def _allocate(file: Path, size: int) -> None:
    """Make a file of this size with its blocks on disk: a full disk shows here, and writing into it is twice as fast."""
    with file.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, size)


def _untouched(checkpoint: Checkpoint, source: Path, edited: Mapping[str, PlannedTensor]) -> Iterator[tuple[int, int]]:
    """Byte ranges of a file between its edited tensors, header included, in chunks."""
    entries = sorted(
        (entry.begin, entry.end) for name, entry in checkpoint.tensors.items() if entry.file == source and name in edited
    )
    position = 0
    for begin, end in [*entries, (source.stat().st_size, 0)]:
        for start in range(position, begin, COPY_CHUNK):
            yield start, min(start + COPY_CHUNK, begin)
        position = end


def _copy_range(source: Path, target: Path, begin: int, end: int) -> None:
    buffer = memoryview(bytearray(IO_CHUNK))
    with source.open("rb", buffering=0) as reader, target.open("r+b", buffering=0) as writer:
        reader.seek(begin)
        writer.seek(begin)
        while begin < end:
            count = reader.readinto(buffer[: end - begin])
            if not count:
                raise EditError(f"{source} became shorter while it was copied.")
            write_all(writer, buffer[:count])
            begin += count


def _edit_one(job: _Job, tensor: PlannedTensor) -> Proof:
    """Edit, write, read back and prove one tensor, in this thread's scratch memory: fresh pages cost more than the edit."""
    entry = job.checkpoint.tensors[tensor.name]
    path = job.target / entry.file.name
    scratch = _scratch(job.checkpoint.read(tensor.name))
    write_range(path, entry, job.make(tensor, scratch))
    proof = prove_tensor(job.checkpoint, tensor, job.edit, path, scratch)
    job.on_tensor(tensor.name)
    return proof


_threads = threading.local()


def _scratch(like: Tensor) -> Tensor:
    """This thread's memory with the shape and dtype of `like`; what it held is lost."""
    if getattr(_threads, "memory", None) is None or _threads.memory.numel() < like.nbytes:
        _threads.memory = torch.empty(like.nbytes, dtype=torch.uint8)
    return _threads.memory[: like.nbytes].view(like.dtype).view(like.shape)
