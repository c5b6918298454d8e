"""Power by simulation against closed forms, and the command as a user runs it."""

import json
import math
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.errors import EngineError
from engine.study.power import Power, Setting, check_setting, latent_correlation
from engine.study.power_run import run_setting
from judging.kinds import icc
from tests.commands import ran


def mcnemar_size(base: float, difference: float, correlation: float) -> float:
    """Pairs for 80 % power (Connor 1987)."""
    other = base + difference
    both = base * other + correlation * math.sqrt(base * (1 - base) * other * (1 - other))
    differing = base + other - 2 * both
    return (1.959964 * math.sqrt(differing) + 0.841621 * math.sqrt(differing - difference**2)) ** 2 / difference**2


@pytest.mark.parametrize(("base", "difference", "correlation"), [(0.5, 0.05, 0.5), (0.7, -0.1, 0.0), (0.2, 0.05, 0.8)])
def test_single_prompts_take_what_connors_formula_says(base: float, difference: float, correlation: float) -> None:
    found, expected = (
        Power(Setting(base, difference, 0.0, correlation)).kinds_needed(1),
        mcnemar_size(base, difference, correlation),
    )
    print(f"{base} {difference:+}: {found} prompts, by formula {expected:.0f}")
    assert found == pytest.approx(expected, rel=0.07)


def test_prompts_of_a_kind_are_worth_less_than_prompts() -> None:
    alike, apart = (Power(Setting(0.7, -0.05, share, 0.5)).kinds_needed(9) for share in (0.2, 0.0))
    assert alike is not None and apart is not None
    print(f"kinds of 9 prompts: {alike} at ICC 0.2, {apart} at 0")
    assert 1.5 < alike / apart < 1 + 8 * 0.2


def test_the_simulated_outcomes_have_the_rate_and_the_icc_that_were_asked_for() -> None:
    power = Power(Setting(0.7, -0.05, 0.2, 0.5))
    rng = np.random.default_rng(0)
    kind, own = power._pairs(rng, (4000, 1))[0], power._pairs(rng, (4000, 9))[0]
    outcomes = math.sqrt(power.kind_share) * kind + math.sqrt(1 - power.kind_share) * own < power.cuts[0]
    names = [f"kind {place // 9}" for place in range(36_000)]
    assert outcomes.mean() == pytest.approx(0.7, abs=0.01)
    assert icc(outcomes.ravel().astype(float).tolist(), names) == pytest.approx(0.2, abs=0.02)


def test_power_at_the_size_that_is_needed_is_what_was_asked() -> None:
    power = Power(Setting(0.7, -0.05, 0.2, 0.5))
    needed = power.kinds_needed(9)
    assert needed is not None
    assert power.at(needed, 9) == pytest.approx(0.8, abs=0.03)
    assert power.at(needed // 2, 9) < 0.6
    assert power.detectable(needed, 9) == pytest.approx(0.05, rel=0.05)


def test_no_number_of_prompts_makes_up_for_too_few_kinds() -> None:
    power = Power(Setting(0.7, -0.05, 0.2, 0.5))
    assert power.rows_needed(20) is None
    rows = power.rows_needed(200)
    assert rows is not None and power.at(200, rows) == pytest.approx(0.8, abs=0.05)


def test_a_tetrachoric_correlation_is_found_back() -> None:
    latent = latent_correlation(0.3, 0.6, 0.25)
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((2, 400_000))
    second = latent * first + math.sqrt(1 - latent**2) * second
    found = np.corrcoef(first < -0.524401, second < 0.253347)[0, 1]
    assert found == pytest.approx(0.25, abs=0.01)
    assert latent_correlation(0.1, 0.9, 0.9) == 0.999


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting(1.2, 0.05), "--base takes a rate"),
        (Setting(0.7, 0.5), "--difference takes a share"),
        (Setting(0.7, 0.0), "--difference takes a share"),
        (Setting(0.7, 0.05, 1.0), "--icc takes a number from 0 to below 1"),
        (Setting(0.7, 0.05, -0.1), "--icc takes a number from 0 to below 1"),
        (Setting(0.7, 0.05, 0.1, 1.0), "--correlation takes a number"),
    ],
)
def test_what_cannot_be_is_refused(setting: Setting, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_setting(setting)


def power_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return ran("power", *arguments)


def test_the_command_answers_in_seconds_and_refuses_with_2() -> None:
    started = time.monotonic()
    done = power_command("--difference=-0.05", "--base=0.7", "--icc=0.2", "--kinds=55", "--rows-per-kind=9", "--json")
    print(f"{time.monotonic() - started:.1f} s")
    found = json.loads(done.stdout)
    assert found["power"] < 0.6 and found["rows_needed"] is None
    assert found["prompts_needed"] == 9 * found["kinds_needed"] > 1000
    refused = power_command("--difference=0.05", "--base=0.7", "--icc=1.5")
    assert refused.returncode == 2 and refused.stderr.startswith("error: --icc takes") and refused.stdout == ""
    assert power_command("--difference=0.05").returncode == 2
    none = power_command("--difference=0.05", "--base=0.7", "--rows-per-kind=0")
    assert none.returncode == 2 and "--rows-per-kind takes a number from 1" in none.stderr


def test_a_run_gives_its_rate_icc_and_correlation(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    kinds = [f"kind {place % 30}" for place in range(270)]
    level = {kind: rng.uniform(0.3, 0.95) for kind in sorted(set(kinds))}
    base = np.array([rng.random() < level[kind] for kind in kinds])
    edited = base & (rng.random(270) < 0.8)
    rollouts, scores = [], []
    for name, did in (("base", base), ("k1", edited)):
        for place, kind in enumerate(kinds):
            key = {"variant_hash": f"hash of {name}", "prompt_id": f"declined/{place:05d}"}
            rollouts.append(key | {"variant": name, "kind": "declined", "category": kind})
            grades = {"compliance": float(not did[place]), "coherence": 1.0, "declined": bool(did[place])}
            scores.append(
                key | grades | {"judge": "offline", "judge_model": "", "rubric_hash": "", "repeat": 0, "error": None, "cost": 0.0}
            )
    pd.DataFrame(rollouts).to_parquet(tmp_path / "rollouts.parquet")
    pd.DataFrame(scores).to_parquet(tmp_path / "scores.parquet")
    found = run_setting(tmp_path, "declined", None)
    assert found.base == pytest.approx(base.mean()) and found.difference == pytest.approx(edited.mean() - base.mean())
    assert found.correlation == pytest.approx(np.corrcoef(base, edited)[0, 1])
    assert found.icc == pytest.approx(max(icc(did.astype(float).tolist(), kinds) for did in (base, edited)))
    assert (found.kinds, found.rows, found.variant, found.judge) == (30, 9.0, "k1", "offline")
    with pytest.raises(EngineError, match="holds no k9"):
        run_setting(tmp_path, "declined", "k9")
    with pytest.raises(EngineError, match="has no scored responses"):
        run_setting(tmp_path / "nowhere", "declined", None)
