"""A disk that fails at the n-th call: one message, and the resumed command gives what an undisturbed one gives."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
JOBS = ("rollout", "judge", "report", "edit")
PARTS = 4  # of the calls of a job, a test each: a test has an end, and a rollout takes a quarter of an hour
CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EINTR)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    made = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, Path(__file__).with_name("faults.c"), "-ldl"], check=True)
    return made


def faulted(library: Path, folder: Path, job: str, code: int, *, once: bool, first: int, step: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "tests.damage.faulted",
        job,
        str(code),
        "once" if once else "on",
        str(first),
        str(step),
        str(folder),
    ]
    environment = os.environ | {"LD_PRELOAD": str(library), "REFUSAL_ROLLOUT_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    count = f"{found['tried']} calls tried, {len(found['wrong'])} wrong"
    fault = f"{errno.errorcode[code]}, {'once' if once else 'from then on'}"
    print(f"{job}, {fault}: {count}", *found["wrong"], sep="\n", file=sys.stderr)
    return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_full_disk_is_one_message_and_the_rest_is_made_later(library: Path, tmp_path: Path, job: str) -> None:
    assert faulted(library, tmp_path, job, errno.ENOSPC, once=False, first=17, step=17)["wrong"] == []


@pytest.mark.slow
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("part", range(PARTS))
def test_so_it_is_at_every_call_and_for_every_fault(
    library: Path, tmp_path: Path, job: str, code: int, once: bool, part: int
) -> None:
    if code == errno.EINTR and not once:
        pytest.skip("a call that is interrupted for ever is no fault of a disk")
    assert faulted(library, tmp_path, job, code, once=once, first=part + 1, step=PARTS)["wrong"] == []
