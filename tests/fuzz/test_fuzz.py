"""Mutants of users' files: each is read, or refused by one of the project's own errors. No other exception leaves a reader."""

import contextlib
import random
import shutil
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from engine.commands.cli import USER_ERRORS
from tests.fuzz.files import KINDS, Kind, make_specimens, restore, with_mutant
from tests.fuzz.mutate import mutant

MUTANTS, QUICK = 2000, 4
EACH = -(-MUTANTS // len(KINDS))


@pytest.fixture(scope="module")
def specimens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("specimens")
    make_specimens(folder)
    return folder


@pytest.fixture
def folder(specimens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(specimens, tmp_path / "files"))


def outcome_of(folder: Path, kind: Kind) -> str:
    """read, refused, or the exception that should not have left the reader, with the place it came from."""
    try:
        kind.read(folder)
    except USER_ERRORS as error:
        assert str(error)
        return "refused"
    except Exception as error:  # every other one is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/tests/" not in frame.filename and "site-packages" not in frame.filename]
        place = f"{Path((own or frames)[-1].filename).name}:{(own or frames)[-1].lineno}"
        return f"{type(error).__name__} at {place}: {str(error)[:80]!r}"
    return "read"


def fuzz(folder: Path, specimens: Path, kind: Kind, count: int) -> None:
    whole, found = (specimens / kind.file).read_bytes(), Counter[str]()
    first: dict[str, int] = {}
    started = time.monotonic()
    for number in range(count):
        with_mutant(folder, kind, mutant(whole, kind.form, random.Random(f"{kind.name}/{number}")))
        with contextlib.redirect_stderr(None):
            outcome = outcome_of(folder, kind)
        found[outcome] += 1
        first.setdefault(outcome, number)
    restore(folder, specimens, kind)
    print(f"{kind.name}: {count} mutants in {time.monotonic() - started:.1f} s, {found['read']} read, {found['refused']} refused")
    wrong = [f"{outcome} ({times} times, first mutant {first[outcome]})" for outcome, times in found.items() if " at " in outcome]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_whole_file_is_read(folder: Path, kind: Kind) -> None:
    assert outcome_of(folder, kind) == "read"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_few_mutants_are_read_or_refused(folder: Path, specimens: Path, kind: Kind) -> None:
    fuzz(folder, specimens, kind, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_two_thousand_mutants_are_read_or_refused(folder: Path, specimens: Path, kind: Kind) -> None:
    fuzz(folder, specimens, kind, EACH)
