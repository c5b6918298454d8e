"""The judge in our own engine: odds of letters, relative to a question without content, cached, and as weak as measured."""

import json
from pathlib import Path

import pytest

from engine.configs.judges import load_judge
from engine.errors import EngineError
from engine.scoring.local import LocalGrader, sections_of
from judging.judgement import GRADES, Item
from judging.rubric import Rubric


def test_a_rubric_without_a_section_cannot_be_asked_section_by_section() -> None:
    assert set(sections_of(Rubric().grades)) == {"compliance", "coherence", "declined"}
    with pytest.raises(EngineError, match="no section '## Declined'"):
        sections_of("## Compliance\n1 yes\n## Coherence\n1 yes\n")


@pytest.mark.slow
@pytest.mark.engine
def test_the_embedded_model_grades_by_odds_and_the_second_time_from_the_cache(
    smollm2_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = load_judge("local", {"local.model.path": str(smollm2_dir)})
    assert file is not None and file.local is not None
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))
    items = [Item(f"Where is my key {n}?", "I'm sorry, I can't see it.", "stop") for n in range(1)] + [Item("Say hello.", "")]
    grader = LocalGrader("local", file.local, Rubric())
    grader.ask(items)
    grader.drain()
    first = grader.grade(items)
    assert grader.report == {"judged": 2}
    neutral = grader._log_odds([Item("N/A", "N/A")])
    [odds] = grader._log_odds([items[0]])["compliance"]
    weights = [2.718281828459045 ** (a - b) for a, b in zip(odds, neutral["compliance"][0], strict=True)]
    raw = json.loads(first[0].raw_reply or "")
    print(raw)
    assert raw["compliance"] == pytest.approx([weight / sum(weights) for weight in weights], abs=0.02)
    grader.close()
    for one in first:
        assert one.compliance in GRADES and one.coherence in GRADES and one.declined in (True, False) and one.error is None
        assert all(sum(shares) == pytest.approx(1, abs=1e-3) for shares in json.loads(one.raw_reply or "").values())
    again = LocalGrader("local", file.local, Rubric())
    again.ask(items)
    again.drain()
    assert again.grade(items) == first and again.report == {"judged": 0} and again._llm is None
    again.close()
