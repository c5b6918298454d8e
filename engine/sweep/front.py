"""The Pareto front of a sweep, and the variants that are kept as files: the front's, the finalists and the winner."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.configs.load import config_toml, model_label
from engine.evaluate.candidates import BASE, RANDOM, SHUFFLED, Candidate
from engine.runs.of_config import with_dtype
from engine.runs.schemas import Row
from engine.sweep.search import Search

MORE, LESS = ("compliance", "coherence"), ("kl",)


def front(stages: Sequence[Row]) -> list[Row]:
    """The variants that none is better than, most compliant first: name, compliance, coherence, KL of the next token or None.

    Of those generated at full length on the selection prompts. One is better where it has no less compliance and coherence and
    no more KL, and differs in one; KL counts between two that the screen measured.
    """
    measured = {row["variant"]: row.get("kl") for row in stages if row["stage"] == "screen"}
    points = [
        {"variant": row["variant"], **{name: row[name] for name in MORE}, "kl": measured.get(row["variant"]), "k": row["k"]}
        for row in stages
        if row["stage"] == "selection" and row["kind"] not in (BASE, RANDOM, SHUFFLED) and row.get("compliance") is not None
    ]
    best = [point for point in points if not any(_is_better(other, point) for other in points)]
    return sorted(best, key=lambda point: (-point["compliance"], -point["coherence"], point["variant"]))


def _is_better(one: Row, other: Row) -> bool:
    pairs = [(one[name], other[name]) for name in MORE]
    pairs += [(-one[name], -other[name]) for name in LESS if None not in (one[name], other[name])]
    return all(mine >= theirs for mine, theirs in pairs) and any(mine > theirs for mine, theirs in pairs)


def kept_variants(search: Search, tested: Sequence[Candidate], on_front: Sequence[Row]) -> list[Candidate]:
    """The candidates that become files: those confirmed, less base and controls, then the rest of the front."""
    confirmed = [candidate for candidate in tested if candidate.kind not in (BASE, RANDOM, SHUFFLED)]
    names = dict.fromkeys([candidate.name for candidate in confirmed] + [str(row["variant"]) for row in on_front])
    return [search.noted[name] for name in names]


def variant_name(search: Search, candidate: Candidate) -> str:
    """A candidate's name outside its sweep: the model's first, so that two models' winners stand beside each other."""
    return f"{model_label(search.session.config.model.path)}-{candidate.name}"


def variant_toml(search: Search, candidate: Candidate) -> str:
    """A candidate as a configuration file that every command takes as --variant."""
    session = search.session
    config = with_dtype(session.config, session.arithmetic.asked)  # the file may go to another machine
    chosen = f"{candidate.name}: found by bin/sweep on {len(search.inputs.pairs)} selection prompts of {config.data.train_pairs}"
    position = candidate.sources[0][0]
    directions = {"layers": candidate.layers, "position": position, "estimator": config.directions.estimator}
    edit = config.edit.model_dump(mode="json", exclude_none=True) | {"alpha": candidate.alpha}
    changed: Mapping[str, Any] = {"description": chosen, "directions": directions, "edit": edit}
    return f'variant = "{variant_name(search, candidate)}"\n' + config_toml(config, changed)
