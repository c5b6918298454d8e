"""bin/bench-runtime without an engine: what its prompts ask for, its ratios, and a site that it does not measure."""

import pytest
from typer.testing import CliRunner

from engine.benchmarks.runtime import MIXED, NONE, NUM_MIXED, ONE, PLAIN, asked_by, ratios
from engine.commands.bench_runtime import app


def test_a_ratio_is_the_median_of_plain_over_its_own() -> None:
    seconds = {PLAIN: [9.0, 10.0, 20.0], ONE: [10.0, 20.0, 20.0], MIXED: [18.0, 20.0, 40.0], NONE: [9.0, 10.0, 40.0]}
    assert ratios(seconds) == {"ratio_to_plain": 0.9, "ratio_to_plain_64_mixed": 0.5, "ratio_slot_zero": 1.0}


def test_a_ratio_of_runs_in_rounds_of_their_own_is_that_of_the_medians() -> None:
    seconds = {PLAIN: [9.0, 10.0, 11.0, 20.0], ONE: [21.0, 20.0], MIXED: [30.0, 40.0], NONE: [10.0, 11.0]}
    assert ratios(seconds) == {"ratio_to_plain": 0.5122, "ratio_to_plain_64_mixed": 0.3, "ratio_slot_zero": 1.0}


def test_mixed_prompts_ask_for_64_variants() -> None:
    assert len({asked.variant for asked in asked_by(MIXED, 200, "inputs") if asked}) == NUM_MIXED


def test_one_variant_is_asked_for_by_every_prompt() -> None:
    assert len({asked for asked in asked_by(ONE, 200, "writes") if asked}) == 1


@pytest.mark.parametrize("way", [PLAIN, NONE])
def test_the_base_is_asked_for_nothing(way: str) -> None:
    assert asked_by(way, 3, "inputs") == [None, None, None]


def test_another_site_is_refused() -> None:
    result = CliRunner().invoke(app, ["--site=heads"])
    assert result.exit_code == 2
    assert "--site takes inputs or writes; found 'heads'" in result.stderr
