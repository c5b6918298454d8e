"""Sets of pairs for a map: one kind of refusal each, with training, selection and test pairs that share no template.

The embedded sets, or a folder of the user's with NAME_train, NAME_selection and NAME_test in any form of prompt files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import EngineError
from engine.paths import hash_of
from engine.runs.requests import ANSWERABLE, DECLINED, Request, under_system
from engine.runs.selection import check_apart, texts_of
from extraction.prompts import EMBEDDED_DIR, Pair, load_pairs

EMBEDDED = EMBEDDED_DIR / "refusals"
TRAIN, SELECTION, TEST = "train", "selection", "test"
SPLITS = (TRAIN, SELECTION, TEST)
LEAST = {TRAIN: 4, SELECTION: 4, TEST: 4}
NAMED = (
    *("inability", "missing_information", "false_premise", "unknowable_future", "personal_opinion"),
    *("policy", "bait", "role_limits", "endless"),
)


@dataclass(frozen=True)
class RefusalSet:
    """One kind of refusal. A pair's category is its template, with the kind's name before it: the unit of every interval."""

    name: str
    pairs: Mapping[str, list[Pair]]

    def requests(self, split: str, kind: str) -> list[Request]:
        """One side of a split as requests of a run."""
        return [
            Request(f"{self.name}/{split}/{kind}/{place:05d}", split, kind, pair.category, _side(pair, kind), pair.language)
            for place, pair in enumerate(self.pairs[split])
        ]


def load_sets(folder: Path | None, kinds: Sequence[str] = (), system: str | None = None) -> list[RefusalSet]:
    """The sets of a folder, the embedded ones where it is None; `kinds` names some of them, none all.

    system: the system text of every prompt that brings none of its own.

    Raises EngineError for a kind that is not there or lacks a split, and for a prompt that two splits share.
    """
    names = _names(folder or EMBEDDED)
    if unknown := [kind for kind in kinds if kind not in names]:
        raise EngineError(f"There is no kind of refusal '{unknown[0]}'; there are {', '.join(names)}.")
    return [_load(folder or EMBEDDED, name, system) for name in (kinds or names)]


def sets_hash(sets: Sequence[RefusalSet]) -> str:
    """A hash of what the sets hold, whatever their files are called."""
    return hash_of({one.name: {split: contents(pairs) for split, pairs in one.pairs.items()} for one in sets})


def contents(pairs: Sequence[Pair]) -> list[list[str]]:
    """Pairs as a hash takes them; a conversation is its transcript."""
    return [[str(value) for value in vars(pair).values()] for pair in pairs]


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise EngineError(f"{folder} is not a folder. Give one with NAME_train, NAME_selection and NAME_test for each kind.")
    found = {_kind_of(file) for file in folder.iterdir() if _kind_of(file)}
    if not found:
        raise EngineError(f"{folder} has no set of pairs: expected files such as policy_train.jsonl.")
    return sorted(found, key=lambda name: (NAMED.index(name) if name in NAMED else len(NAMED), name))


def _kind_of(file: Path) -> str:
    """The kind that a file's name begins with; "" where it ends in no split."""
    kind, _, split = file.name.partition(".")[0].rpartition("_")
    return kind if split in SPLITS and file.suffix != ".toml" else ""


def _load(folder: Path, name: str, system: str | None) -> RefusalSet:
    pairs = {split: _named(under_system(load_pairs(_file(folder, name, split)), system), name) for split in SPLITS}
    for split, found in pairs.items():
        if len(found) < LEAST[split]:
            raise EngineError(f"{folder / name}_{split} has {len(found)} pairs; expected {LEAST[split]} or more.")
    for one, other in ((TRAIN, SELECTION), (TRAIN, TEST), (SELECTION, TEST)):
        check_apart(f"{name}'s {one}", texts_of(pairs[one]), other, texts_of(pairs[other]))
    return RefusalSet(name, pairs)


def _file(folder: Path, name: str, split: str) -> Path:
    files = sorted(folder.glob(f"{name}_{split}.*"))
    if len(files) != 1:
        raise EngineError(f"{folder} has {len(files)} files called {name}_{split}; expected one, such as {name}_{split}.jsonl.")
    return files[0]


def _named(pairs: Sequence[Pair], name: str) -> list[Pair]:
    """The pairs with their kind's name before their templates'; a pair without one is a template of its own."""
    return [replace(pair, category=f"{name}: {pair.category or f'pair {place}'}") for place, pair in enumerate(pairs)]


def _side(pair: Pair, kind: str) -> str:
    return {DECLINED: pair.declined, ANSWERABLE: pair.answered}[kind]
