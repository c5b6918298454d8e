"""bin/rollout --vary: the same prompts under several conditions, paired differences; planted answers, no engine."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.commands.factors import parse_factors
from engine.configs.conditions import conditions_of
from engine.configs.load import changed
from engine.configs.schema import RunConfig, SamplingConfig
from engine.display.run_tables import condition_table, figure_tables
from engine.errors import EngineError
from engine.inference.replica import Generation
from engine.rollout.run import run
from engine.runs import parquet
from engine.runs.requests import across_conditions
from engine.runs.session import Session
from engine.study.opening import open_study
from tests.small_run import REQUESTS, SmallReplica, config_of, make_inputs

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}{{ day | default('') }}>{{ m['content'] }}{% endfor %}<go>"
DECLINES, ANSWERS = "I'm sorry, but I can't do that.", "Here is the key that you asked me for, on the table."


class Obedient(SmallReplica):
    """Declines under a system text that says so, and answers under another; keeps what it was asked, and how."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer, self.heard = tokenizer, list[tuple[str, float]]()

    def generate(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, **options: Any) -> Iterator[Generation]:
        for index, prompt in enumerate(prompts):
            text = self.tokenizer.decode(prompt)
            self.heard.append((text, sampling.temperature))
            yield Generation(index, DECLINES if "Say no" in text else ANSWERS, [5, 6, 7], "stop", -1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditions")
    make_inputs(folder)
    (folder / "no.txt").write_text("Say no.\n")
    (folder / "yes.txt").write_text("Say yes.\n")
    return folder


def config_with(folder: Path, *factors: str, **settings: Any) -> RunConfig:
    vary = parse_factors(list(factors))
    base = changed(config_of(folder), {"model.chat_template": TEMPLATE}, "the test")
    return changed(base, ({"vary": vary} if vary else {}) | settings, "the test")


def system_factor(folder: Path, *more: str) -> str:
    return ",".join(["system=" + str(folder / "yes.txt"), str(folder / "no.txt"), *more])


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("run") / "run"
    session = Session(config_with(folder, system_factor(folder)))
    replica = Obedient(session.renderer.tokenizer)
    session.use(replica)  # type: ignore[arg-type]
    summary = run(session.config, out, session=session)
    return {"summary": summary, "rows": parquet.read_rows(out / "rollouts.parquet"), "heard": replica.heard}


def test_every_prompt_is_asked_under_every_condition(made: dict[str, Any]) -> None:
    counts = {label: sum(row["condition"] == label for row in made["rows"]) for label in ("system=yes.txt", "system=no.txt")}
    assert set(counts.values()) == {2 * (REQUESTS + 4)}


def test_the_engine_hears_the_conditions_system_text(made: dict[str, Any]) -> None:
    heard = [text for text, _ in made["heard"]]
    assert "<system>Say no.<user>See my key 3?<go>" in heard


def test_rows_of_one_prompt_have_one_name_across_conditions(made: dict[str, Any]) -> None:
    names = {across_conditions(row["prompt_id"]) for row in made["rows"]}
    assert len(names) == REQUESTS + 4


def test_each_condition_has_figures_of_its_own(made: dict[str, Any]) -> None:
    base = [row for row in made["summary"]["figures"] if row["form"] == "base" and row["kind"] == "declined"]
    assert {row["condition"]: row["declined"]["value"] for row in base} == {"system=yes.txt": 0.0, "system=no.txt": 1.0}


def test_a_condition_is_compared_with_the_first_prompt_by_prompt(made: dict[str, Any]) -> None:
    found = next(row for row in made["summary"]["conditions"] if row["kind"] == "declined" and row["variant"] == "base")
    assert (found["condition"], found["declined"]["value"], found["declined"]["n"]) == ("system=no.txt", 1.0, REQUESTS)


def test_the_difference_has_its_test(made: dict[str, Any]) -> None:
    found = next(row for row in made["summary"]["conditions"] if row["kind"] == "declined")
    assert found["declined"]["p"] == pytest.approx(2 / 2**REQUESTS)


def test_a_variant_is_compared_with_the_base_of_its_own_condition(made: dict[str, Any]) -> None:
    edited = [row for row in made["summary"]["figures"] if row["form"] != "base" and row["kind"] == "declined"]
    assert [row["against_base"]["declined"]["value"] for row in edited] == [0.0, 0.0]


def test_tables_name_the_condition(made: dict[str, Any]) -> None:
    cells = [row[1] for row in figure_tables(made["summary"])[0].rows]
    assert "declined, system=no.txt" in cells


def test_the_differences_have_a_table(made: dict[str, Any]) -> None:
    table = condition_table(made["summary"]["conditions"])
    assert table is not None and len(table.rows) == 4


def test_factors_are_crossed(folder: Path) -> None:
    config = config_with(folder, system_factor(folder), "temperature=0,0.7")
    assert [condition.label for condition in conditions_of(config)] == [
        "system=yes.txt, temperature=0",
        "system=yes.txt, temperature=0.7",
        "system=no.txt, temperature=0",
        "system=no.txt, temperature=0.7",
    ]


def test_none_leaves_a_factor_out(folder: Path) -> None:
    session = Session(config_with(folder, system_factor(folder, "none")))
    plain = [request for request in session.requests if request.condition == "system=none"]
    assert {type(request.text) for request in plain} == {str}


def test_a_key_of_the_template_gives_another_rendering(folder: Path) -> None:
    session = Session(config_with(folder, "model.chat_template_kwargs.day=Monday,Tuesday"))
    asked = [request for request in session.requests if request.prompt_id.startswith("declined/00003@")]
    texts = [session.renderer.tokenizer.decode(ids) for ids in session.render(asked, "a test")]
    assert texts == ["<userMonday>See my key 3?<go>", "<userTuesday>See my key 3?<go>"]


def test_a_temperature_is_the_conditions_own(folder: Path, tmp_path: Path) -> None:
    session = Session(config_with(folder, "temperature=0,0.7"))
    replica = Obedient(session.renderer.tokenizer)
    session.use(replica)  # type: ignore[arg-type]
    run(session.config, tmp_path / "run", session=session)
    assert sorted({temperature for _, temperature in replica.heard}) == [0.0, 0.7]


def test_a_run_without_conditions_is_the_run_that_it_was(folder: Path) -> None:
    assert "vary" not in Session(config_of(folder)).identity["config"]


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (["colour=red,blue"], "--vary takes system, template_date, .*found 'colour'"),
        (["system"], "--vary takes a factor once, with its levels"),
        (["temperature=0,1", "temperature=0,2"], "--vary takes a factor once"),
        (["temperature=0,0"], "names a level twice"),
        (["temperature=0"], "sampling.temperature has one level"),
        (["temperature=0,hot"], "--vary temperature=hot: .*valid number"),
    ],
)
def test_bad_factors_are_refused(folder: Path, factors: list[str], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        Session(config_with(folder, *factors))


def test_a_study_takes_one_condition(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="vary is for bin/rollout"):
        open_study(config_with(folder, "temperature=0,0.7"), tmp_path / "run")
