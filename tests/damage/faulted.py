"""Lets the n-th call on a command's files fail, for n = 1, 2, 3 ..., until the command comes through; run by test_faults.

    LD_PRELOAD=faults.so python -m tests.damage.faulted JOB ERRNO ONCE FIRST STEP FOLDER

Prints a JSON object: how many calls there are, how many were tried, and what was wrong with which.
"""

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from engine.runs.files import ROLLOUTS, SCORES, SUMMARY
from tests.damage.test_damage_table import called, outcome
from tests.small_run import config_of, main, make_inputs

MOST_CALLS = 2000


class Faults:
    """The preloaded library."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_what.restype = self._library.fault_where.restype = ctypes.c_char_p

    def arm(self, number: int, code: int, folder: Path, *, once: bool) -> None:
        self._library.fault_arm(number, code, os.fsencode(folder), int(once))

    def disarm(self) -> str:
        """The call that failed, and on which file; "" where none did."""
        self._library.fault_disarm()
        what = self._library.fault_what().decode()
        return f"{what} {Path(self._library.fault_where().decode()).name}" if what else ""


def content(out: Path) -> dict[str, Any]:
    """What of a command's files does not differ from time to time."""
    found: dict[str, Any] = {}
    if (out / "run" / ROLLOUTS).is_file():
        found["rollouts"] = pd.read_parquet(out / "run" / ROLLOUTS).fillna("").astype(str).values.tolist()
    if (out / "run" / SCORES).is_file():
        scores = pd.read_parquet(out / "run" / SCORES)
        found["scores"] = scores[["variant_hash", "prompt_id", "compliance", "coherence"]].fillna("").astype(str).values.tolist()
    if (out / "edited").is_dir():
        found["weights"] = (out / "edited" / "model.safetensors").read_bytes().hex()
    found["files"] = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if "plots" not in path.parts)
    return found


def judge(folder: Path, out: Path) -> None:
    called("judge", out / "run", "--judge", "offline")


def edit(folder: Path, out: Path) -> None:
    called("edit", "--variant", folder / "small.toml", "--run", out / "run", "--out", out / "edited")


JOBS: dict[str, Callable[[Path, Path], None]] = {
    "rollout": lambda folder, out: main(folder, out / "run"),
    "judge": judge,
    "report": lambda folder, out: called("report", out / "run", "--out", out / "page.html"),
    "edit": edit,
}


def begin(job: str, folder: Path, out: Path) -> None:
    """What the job finds: nothing, a run without scores, or a finished run."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    if job != "rollout":
        shutil.copytree(folder / "finished" / "run", out / "run")
    if job == "judge":
        (out / "run" / SCORES).unlink()
        (out / "run" / SUMMARY).unlink()


def trial(job: str, folder: Path, number: int, code: int, *, once: bool, faults: Faults) -> tuple[str, str]:
    """The call that failed ("" where there are fewer), and what was wrong with what came of it."""
    out = folder / "out"
    begin(job, folder, out)
    faults.arm(number, code, out, once=once)
    try:
        found = outcome(lambda: JOBS[job](folder, out))
    except Exception as error:  # a traceback or a hang of the command's
        return faults.disarm(), f"{type(error).__name__}: {str(error)[:200]}"
    failed = faults.disarm()
    if not failed:
        return "", "" if found.status == 0 else f"exit {found.status} without a fault: {found.said[-200:]}"
    errors = sum(line.startswith("error: ") for line in found.said.splitlines())
    if "Traceback" in found.said or found.status not in (0, 2) or (found.status == 2) != (errors == 1):
        return failed, f"exit {found.status}: {found.said[-300:]}"
    if found.status == 0 and not once and not failed.startswith(("open to read", "read")):
        return failed, f"a call failed and nothing was said: {found.said[-200:]}"
    again = outcome(lambda: JOBS[job](folder, out))
    done = again.status == 0 or "exists already" in again.said
    if not done or content(out) != json.loads((folder / f"{job}.json").read_text()):
        return failed, f"resumed, exit {again.status}, and another result: {again.said[-200:]}"
    return failed, ""


def loop(job: str, code: int, folder: Path, *, once: bool, first: int, step: int) -> dict[str, Any]:
    make_inputs(folder)
    from engine.configs.load import config_toml

    (folder / "small.toml").write_text(config_toml(config_of(folder)))
    (folder / "finished").mkdir()
    main(folder, folder / "finished" / "run")
    begin(job, folder, folder / "out")
    JOBS[job](folder, folder / "out")
    (folder / f"{job}.json").write_text(json.dumps(content(folder / "out")))
    faults, wrong, tried = Faults(), [], 0
    for number in range(first, MOST_CALLS, step):
        failed, why = trial(job, folder, number, code, once=once, faults=faults)
        tried += bool(failed)
        if why:
            wrong.append(f"call {number}, {failed}, {errno.errorcode[code]}: {why}")
        if not failed:
            break
    return {"job": job, "tried": tried, "last": number, "wrong": wrong}


if __name__ == "__main__":
    name, code, once, first, step, folder = sys.argv[1:]
    with open(os.devnull, "w") as quiet:
        sys.stderr, kept = quiet, sys.stderr
        result = loop(name, int(code), Path(folder), once=once == "once", first=int(first), step=int(step))
        sys.stderr = kept
    print(json.dumps(result))
