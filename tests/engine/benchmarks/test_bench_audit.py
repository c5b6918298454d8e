"""The audit's benchmark counts what it says: edits that were named rightly, and alarms on models that nobody edited."""

import pytest

from engine.benchmarks import audit as benchmark
from engine.benchmarks.audit_models import SORTS, random_model, writers_of


def test_right_verdicts_and_false_alarms_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "CASES", [case for case in benchmark.CASES if case.label.startswith("amplified")])
    monkeypatch.setattr(benchmark, "SORTS", SORTS[:2])
    found = benchmark.bench_audit(per_case=2, untouched=3)
    assert [(row["n"], row["alone"], row["with_base"]) for row in found["edits"]] == [(2, 0, 2)]
    assert [(row["group"], row["n"], row["alone"], row["with_base"]) for row in found["untouched"]] == [
        ("axis-scaled", 2, 0, 0),
        ("axis-scaled", 1, 0, 0),
    ]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "mixtral"])
def test_what_happens_to_models_reaches_both_writers_of_every_block(family: str) -> None:
    assert len(list(writers_of(random_model(family)))) == 12
