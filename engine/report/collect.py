"""A run directory as a report reads it: the manifest, the summary, and whichever studies are there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.display.progress import say
from engine.errors import EngineError
from engine.runs.files import MANIFEST, ROLLOUTS, SCORES, STUDY_FORMAT, SUMMARY, SWEEP_RUN, TIMING
from engine.runs.json_reader import read_json
from engine.runs.manifest import read_manifest
from engine.runs.run_dir import RunDir
from engine.runs.schemas import Row

STUDIES = (
    "geometry",
    "padded",
    "reading",
    "effect",
    "ablation",
    "regrowth",
    "transfer",
    "adapter",
    "behaviour",
    "map",
    "bench",
    "compare",
)
OTHERS = (ROLLOUTS, SCORES, SUMMARY, TIMING)


@dataclass(frozen=True)
class RunData:
    """A run directory's content. `studies` holds the parsed JSON files that are there, by name."""

    path: Path
    manifest: Row
    summary: Row
    studies: dict[str, Row] = field(default_factory=dict)
    timing: Row | None = None

    @property
    def config(self) -> Row:
        return dict(self.manifest["identity"]["config"])

    @property
    def name(self) -> str:
        """The variant's label, with the directory's where they differ."""
        label = str(self.config["variant"])
        return label if self.path.resolve().name == label else f"{label} ({self.path.resolve().name})"

    @property
    def label(self) -> str:
        """A short name for links."""
        return self.path.resolve().name

    @property
    def is_sweep(self) -> bool:
        return bool(self.manifest["kind"] == SWEEP_RUN)

    @property
    def base_hash(self) -> str:
        return str(self.manifest["identity"]["base_hash"])

    @property
    def model(self) -> str:
        """The model's name, from whichever file says it."""
        found = self.summary.get("model") or self.studies.get("geometry", {}).get("model")
        return str(found or Path(self.config["model"]["path"]).name)


def read_run(path: Path) -> RunData:
    """Read a run directory.

    Raises EngineError where it is none, and where it is half made: nothing in it is finished.
    """
    if not path.is_dir() or not (path / MANIFEST).is_file():
        raise EngineError(f"{path} is not a run directory: it has no manifest.json. Give one that bin/rollout or bin/sweep made.")
    manifest = read_manifest(path)
    RunDir(path, manifest).check(files_shown(manifest))
    studies = dict(_studies(path, manifest))
    summary = _read(path / SUMMARY) if (path / SUMMARY).is_file() else {}
    if summary and "kind" not in summary:
        say(f"report: {path / SUMMARY} is of another version and is left out; run its command again")
        summary = {}
    if not summary and not studies:
        done = ", ".join(manifest["stages"]) or "none"
        raise EngineError(
            f"{path} is half made (finished stages: {done}) and holds nothing to report. Run the command that began it again: "
            "it continues where it stopped."
        )
    timing = _read(path / TIMING) if (path / TIMING).is_file() else None
    return RunData(path, manifest, summary, studies, timing)


def files_shown(manifest: Row) -> list[str]:
    """The files that a run's page is made of."""
    return [*OTHERS, *(f"{name}.json" for name in _study_names(manifest))]


def _study_names(manifest: Row) -> list[str]:
    """The studies that have commands of their own, then those that bin/study made: each of these is a stage of its name."""
    return [*STUDIES, *(stage for stage in manifest["stages"] if stage not in (*STUDIES, Path(SUMMARY).stem))]


def _studies(path: Path, manifest: Row) -> Iterator[tuple[str, Row]]:
    for name in _study_names(manifest):
        if (path / f"{name}.json").is_file():
            content = _read(path / f"{name}.json")
            if content.get("format") == STUDY_FORMAT:
                yield name, content
            else:
                say(f"report: {path / name}.json is of another version and is left out; run its command again")


def _read(path: Path) -> Row:
    return read_json(path, "Remove it and run again the command that made it.")
