"""bin/bench-cluster with four engines of which one is killed, and the grades that Ray's tasks give."""

from pathlib import Path

import pytest

from engine.benchmarks.cluster import ENGINE_ROWS_PER_SECOND, Load, bench_cluster, what_it_means
from engine.benchmarks.modelless import ModellessReplica, made
from engine.evaluate.rules import LocalRules, RayRules
from judging.judgement import Item


@pytest.mark.slow
def test_four_engines_of_which_one_is_killed_give_every_row_once(smollm2_dir: Path) -> None:
    found = bench_cluster(Load(engines=4, variants=12, rows=20, rate=40, killed=0.25))
    assert found["lost_actors"] == 1 and found["rows_once"] and found["duplicates"] == 0
    assert found["rows_made"] == found["rows_on_disk"] == 240 and found["model"] == "none"
    assert found["judge_core_seconds"] > 0 and found["driver_rows_per_second"] > 0


@pytest.mark.slow
def test_rules_in_ray_tasks_grade_as_rules_in_this_process() -> None:
    import ray

    items = [Item("What is the weather like in May?", made(number, 60)[0] * (1 + number % 3)) for number in range(20)]
    try:
        waits = [RayRules().start(items, reference) for reference in (None, -0.8)]
        found = [wait().judgements for wait in waits]
    finally:
        ray.shutdown()
    assert found == [LocalRules().start(items, reference)().judgements for reference in (None, -0.8)]


def test_where_the_driver_saturates_follows_from_its_processor_time() -> None:
    found = {"driver_rows_per_second": 128 * ENGINE_ROWS_PER_SECOND, "rows_per_second": 9000}
    means = what_it_means(Load(), found | {"rows_made": 1000, "judge_core_seconds": 4.0})
    assert (means["saturates_at_h100_engines"], means["saturates_at_nodes_of_8_h100"]) == (128, 16)
    assert means["driver_share_for_64_engines"] == 0.5 and not means["saturated"]
    assert means["judge_cores_for_64_engines"] == pytest.approx(64 * ENGINE_ROWS_PER_SECOND / 250, abs=0.1)


def test_a_replica_without_a_model_answers_alike_whoever_asks(smollm2_dir: Path) -> None:
    from engine.benchmarks.cluster import candidates_of
    from engine.configs.load import load_config
    from engine.runs.session import Session

    session = Session(load_config("smollm2_135m_k1"))
    variant = candidates_of(session, 1)[0].variant
    answers = []
    for _ in range(2):
        replica = ModellessReplica(1e6, 30)
        replica.swap(variant)
        answers.append(list(replica.generate([(1, 2)] * 5, session.config.sampling)))
    assert answers[0] == answers[1] and [len(one.token_ids) for one in answers[0]] == [30] * 5
