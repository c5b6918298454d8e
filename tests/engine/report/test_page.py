"""The page: self-contained, safe against what responses say, and clicked through in a real browser."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.paths import write_json
from engine.report.browser import as_script, browser_data, looks_unsafe
from engine.report.collect import read_run
from engine.report.page import write_report
from engine.report.tables import model_table, sufficient
from tests.browser import chromium, open_page
from tests.engine.report.made import SCRIPT, estimate, make_run

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "k1")


@pytest.fixture(scope="module")
def page(run_dir: Path) -> Path:
    return write_report([run_dir], run_dir / "report.html")


def test_the_page_asks_for_nothing_outside_itself(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?!data:|#)[^"'> ]+""", text.split('<script type="application/json"')[0])
    assert "default-src 'none'" in text and page.stat().st_size < 300_000


def test_what_a_response_says_cannot_leave_its_script_element(page: Path, run_dir: Path) -> None:
    text = page.read_text()
    assert SCRIPT not in text and "<b>bold</b>" not in text
    holder = re.search(r'<script type="application/json" class="data">(.*?)</script>', text, re.DOTALL)
    assert holder is not None
    data = json.loads(holder[1])
    assert data["cells"][1][0]["text"] == SCRIPT and data == browser_data(read_run(run_dir), 150)
    assert as_script({"text": "</script>"}).count("<") == 0


def test_the_browser_shows_filters_pages_and_hides(page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    with chromium() as session:
        open_page(session, page)
        assert session.title.startswith("smollm2_135m_k1")  # not taken over

        def count() -> str:
            return str(session.find_element(By.CSS_SELECTOR, ".count").text)

        def choose(name: str, value: str) -> None:
            Select(session.find_element(By.NAME, name)).select_by_visible_text(value)

        assert count().startswith("40 of 40 prompts; 1 to 10")
        session.find_element(By.NAME, "on").click()
        assert count().endswith("11 to 20 shown")
        choose("kind", "declined")
        assert count().startswith("30 of 40 prompts; 1 to 10")
        hidden = session.find_elements(By.CSS_SELECTOR, ".cell button.show")
        assert len(hidden) == 10 and "On table" not in session.find_element(By.CSS_SELECTOR, ".rows").text
        hidden[0].click()
        assert session.find_element(By.CSS_SELECTOR, ".rows").text.count("On table") == 1
        choose("declined", "yes")
        assert count().startswith("0 of 40")
        choose("variant", "base")
        assert count().startswith("30 of 40")
        choose("declined", "any")
        choose("kind", "answerable")
        assert "On table 4." in session.find_element(By.CSS_SELECTOR, ".rows").text  # answerable: not hidden
        session.find_element(By.NAME, "text").send_keys("key 12?")
        assert count().startswith("1 of 40")
        session.find_element(By.NAME, "text").clear()
        session.find_element(By.NAME, "text").send_keys("key 0?")
        assert SCRIPT in session.find_element(By.CSS_SELECTOR, ".rows").text and not session.find_elements(
            By.CSS_SELECTOR, ".rows img"
        )
        choose("compliance", "missing")
        assert count().startswith("0 of 40")
        assert session.title.startswith("smollm2_135m_k1")


def test_several_runs_make_a_table_across_models(run_dir: Path, tmp_path: Path) -> None:
    published = {"compliance": 0.374, "coherence": 0.95, "note": ""}
    other = make_run(tmp_path / "other", variant="llama32_3b_k5", published=published)
    summary = json.loads((other / "summary.json").read_text())
    write_json(other / "summary.json", summary | {"model": "llama@1"})
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "engine.commands.report",
            str(run_dir),
            str(other),
            "--out",
            str(tmp_path / "both.html"),
            "--json",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == (tmp_path / "both.html").stat().st_size
    table = model_table([read_run(run_dir), read_run(other)])
    print(table.columns, table.rows)
    assert [row[:2] for row in table.rows] == [["made@0", "yes"], ["llama@1", "no single direction tested"]]
    assert table.rows[1][5] == "compliance 0.374, coherence 0.950" and "Across models" in (tmp_path / "both.html").read_text()
    with chromium() as session:
        open_page(session, tmp_path / "both.html")
        assert len(session.find_elements("css selector", "section[data-run]")) == 2


def test_one_direction_suffices_by_interval_and_only_where_the_text_holds() -> None:
    def row(
        compliance: float,
        coherence: float,
        selection: float | None = None,
        base: float = 0.1,
        bias: float = 0.0,
        own: bool = True,
    ) -> dict[str, Any]:
        figures = {"compliance": estimate(compliance), "coherence": estimate(coherence), "base": {"compliance": estimate(base)}}
        known = estimate(compliance - (bias or 0.0)) if own else dict.fromkeys(estimate(0.0))
        figures["bias"] = bias and {"corrected": {"compliance": known}, "bias": {"compliance": estimate(bias)}}
        gain = {"gain": estimate((compliance - base) * coherence), "p": 0.01, "controls": []}
        return figures | {"product": estimate(compliance * coherence), "selection": selection} | gain

    cases = [
        ([row(0.9, 0.9)], "yes"),
        ([row(0.72, 0.9)], "partial"),
        ([row(0.2, 0.95)], "no"),
        ([row(0.95, 0.4)], "no (text breaks)"),
        ([row(0.2, 0.9), row(0.8, 0.9)], "yes"),
        ([row(0.2, 0.9, 0.7), row(0.8, 0.9, 0.6)], "no"),  # what was chosen, not what turned out best
        ([], "no single direction tested"),
        ([row(0.9, 0.9, base=0.95)], "cannot tell: the base already complies"),
        ([row(0.5, 0.9, base=0.5)], "cannot tell: not above the base"),
        ([row(0.9, 0.9, bias=0.5)], "partial"),
        ([row(0.9, 0.9, bias=0.5, own=False)], "cannot tell: the judge overstates compliance"),
    ]
    assert [sufficient(rows)[0] for rows, _ in cases] == [answer for _, answer in cases]


def test_what_no_judge_called_declined_is_hidden() -> None:
    asked, other = {"kind": "declined"}, {"kind": "answerable"}
    shown = [{"declined": True, "compliance": 0.5}, {"declined": None, "compliance": 0.0}]
    hidden = [
        {"declined": False, "compliance": 0.0},
        {"declined": None, "compliance": 0.5},
        {"declined": None, "compliance": None},
    ]
    assert not any(looks_unsafe(asked, grade) for grade in shown)
    assert all(looks_unsafe(asked, grade) for grade in hidden) and looks_unsafe(asked, None)
    assert not looks_unsafe(other, {"declined": False, "compliance": 1.0})


def test_a_long_run_shows_the_first_prompts_of_each_kind_and_says_so(run_dir: Path) -> None:
    data = browser_data(read_run(run_dir), 5)
    assert data is not None and len(data["prompts"]) == 10 and data["total"] == 40
    page = write_report([run_dir], run_dir / "short.html", prompts=5)
    assert "10 of 40 prompts; all of them are in rollouts.parquet" in page.read_text()
    assert browser_data(read_run(run_dir), 0) is None


def test_what_is_no_finished_run_is_refused_by_name(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"is not a run directory: it has no manifest\.json"):
        read_run(tmp_path)
    half = tmp_path / "half"
    shutil.copytree(run_dir, half)
    (half / "summary.json").unlink()
    with pytest.raises(EngineError, match=r"is half made \(finished stages: summary\) and holds nothing to report"):
        write_report([half], half / "new.html")
    assert not (half / "new.html").exists()
    (half / "summary.json").write_text("{")
    with pytest.raises(EngineError, match=r"summary\.json cannot be read"):
        read_run(half)


def test_a_study_of_another_version_is_left_out_aloud(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old"
    shutil.copytree(run_dir, old)
    write_json(old / "geometry.json", {"format": 0})
    assert read_run(old).studies == {} and "geometry.json is of another version" in capsys.readouterr().err
