"""The page: self-contained, safe against what responses say, and clicked through in a real browser."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from engine.display import plotting
from engine.display.run_tables import figure_tables
from engine.display.table import as_csv, as_latex, as_markdown
from engine.errors import EngineError
from engine.paths import write_json
from engine.report.browser import browser_data, looks_unsafe
from engine.report.chart import Point, dots
from engine.report.collect import read_run
from engine.report.headline import headline
from engine.report.page import write_report
from engine.report.tables import model_table, sufficient
from tests.browser import chromium, open_page
from tests.engine.report.made import SCRIPT, estimate, make_run, unpacked
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "k1")


@pytest.fixture(scope="module")
def page(run_dir: Path) -> Path:
    return write_report([run_dir], run_dir / "report.html")


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the user's own requests, whose responses are hidden at first."""
    return make_run(tmp_path_factory.mktemp("runs") / "own", requests="/data/requests.csv")


def test_the_page_asks_for_nothing_outside_itself(page: Path) -> None:
    text = re.sub(r"<script type=.application/gzip.*?</script>", "", page.read_text(), flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["']?(?!data:|#|\$)[^"'> ]+""", text)
    assert "default-src 'none'" in text


def test_what_a_response_says_cannot_leave_its_script_element(page: Path, run_dir: Path) -> None:
    text = page.read_text()
    assert SCRIPT not in text
    assert "<b>bold</b>" not in text


def test_the_page_holds_every_response(page: Path, run_dir: Path) -> None:
    (data,) = unpacked(page)
    assert data["cells"][1][0]["text"] == SCRIPT
    assert data == browser_data(read_run(run_dir), None)


def test_a_table_that_attacks_cannot_leave_its_forms(run_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run_dir, other)
    summary = json.loads((other / "summary.json").read_text())
    summary["figures"][0]["variant"] = SCRIPT
    write_json(other / "summary.json", summary)
    assert SCRIPT not in write_report([other], other / "report.html").read_text()


def test_the_embedded_requests_are_harmless_and_nothing_is_hidden(page: Path) -> None:
    assert not any(cell.get("hidden") for cells in unpacked(page)[0]["cells"] for cell in cells)


def test_of_own_requests_what_no_judge_called_declined_is_hidden_at_first(own_run: Path) -> None:
    data = browser_data(read_run(own_run), None)
    assert data is not None
    hidden = {
        (place, prompt["kind"])
        for prompt, cell in zip(data["prompts"], data["cells"][1], strict=True)
        if (place := cell.get("hidden"))
    }
    assert hidden == {(True, "declined")}
    assert not any(cell.get("hidden") for cell in data["cells"][0])


def test_ten_thousand_prompts_are_on_a_page_of_less_than_ten_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "large", prompts=10_000)
    page = write_report([run], run / "report.html")
    assert page.stat().st_size < 10_000_000
    assert len(unpacked(page)[0]["prompts"]) == 10_000


def test_the_first_screen_says_what_changed_how_sure_and_at_what_cost(run_dir: Path) -> None:
    found = headline(read_run(run_dir), 0)
    assert found is not None
    assert [card.title for card in found.cards] == ["What changed", "How sure", "At what cost"]
    assert found.cards[0].lines[0] == "Declined: 0.10 [0.05, 0.15] of 30 requests before, 0.90 [0.85, 0.95] after."
    assert "p 0.0001" in found.cards[1].lines[0]
    assert found.cards[1].lines[1] == "30 prompts of 12 kinds, worth 20 independent ones."


def test_the_chart_has_a_point_for_each_figure_of_each_variant(run_dir: Path) -> None:
    found = headline(read_run(run_dir), 3)
    assert found is not None
    points = re.findall(r'<a href="#run=3&amp;kind=declined&amp;variant=([^"]+)"><title>(\w+): ', found.chart)
    names = ("base", "smollm2_135m_k1")
    assert points == [(name, figure) for figure in ("declined", "compliance", "coherence", "product") for name in names]


def test_a_chart_cannot_be_broken_by_a_name() -> None:
    drawn = dots([Point(SCRIPT, estimate(0.5), 0, '#"><script>')], [SCRIPT], SCRIPT)
    assert "<script" not in drawn
    assert ElementTree.fromstring(drawn).tag == "svg"


def test_the_studys_table_stands_beside_the_page_as_latex(page: Path) -> None:
    text = page.with_suffix(".tex").read_text()
    assert "Subspace & k & Compliance & Coherence & Product" in text
    assert r"smollm2\_135m\_k1 & 1 & 0.900 [0.850, 0.950]" in text


def test_a_plot_is_there_for_screen_and_paper(tmp_path: Path) -> None:
    pictures = plotting.images(plotting.pyplot().figure())
    again = plotting.images(plotting.pyplot().figure())
    assert pictures["png"].startswith(b"\x89PNG")
    assert pictures["svg"] == again["svg"]


class Page:
    """What a reader does on a page in a browser."""

    def __init__(self, session: Any, page: Path) -> None:
        self.session = session
        open_page(session, page)
        self.wait("return document.body.dataset.ready")

    def wait(self, script: str) -> None:
        wait_for(lambda: bool(self.session.execute_script(script)))

    def count(self) -> str:
        return str(self.session.find_element("css selector", ".count").text)

    def rows(self) -> str:
        return str(self.session.find_element("css selector", ".rows").text)

    def choose(self, name: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.session.find_element("name", name)).select_by_visible_text(value)

    def type(self, name: str, text: str) -> None:
        field = self.session.find_element("name", name)
        field.clear()
        field.send_keys(text)

    def press(self, key: str) -> None:
        self.session.find_element("css selector", "body").send_keys(key)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with chromium() as started:
        yield started


def test_the_browser_pages_and_filters(session: Any, page: Path) -> None:
    shown = Page(session, page)
    assert session.title.startswith("smollm2_135m_k1")  # not taken over
    assert shown.count().startswith("40 of 40 prompts; 1 to 10")
    session.find_element("name", "on").click()
    assert shown.count().endswith("11 to 20 shown")
    shown.choose("kind", "declined")
    assert shown.count().startswith("30 of 40 prompts; 1 to 10")
    shown.choose("declined", "yes")
    assert shown.count().startswith("0 of 40")
    shown.choose("variant", "base")
    assert shown.count().startswith("30 of 40")
    shown.choose("declined", "any")
    shown.choose("compliance", "missing")
    assert shown.count().startswith("0 of 40")


def test_the_browser_finds_words_of_prompts_and_of_responses(session: Any, page: Path) -> None:
    shown = Page(session, page)
    shown.type("text", "key 12?")
    assert shown.count().startswith("1 of 40")
    shown.type("text", "on table 7.")
    assert shown.count().startswith("1 of 40")
    shown.type("text", "key 0?")
    assert SCRIPT in shown.rows()
    assert not session.find_elements("css selector", ".rows img")
    assert session.title.startswith("smollm2_135m_k1")


def test_what_the_edit_freed_is_one_choice(session: Any, page: Path) -> None:
    shown = Page(session, page)
    shown.choose("show", "base declined, variant did not")
    assert shown.count().startswith("30 of 40")
    shown.choose("show", "variant declined, base did not")
    assert shown.count().startswith("0 of 40")


def test_where_judges_differ_is_one_choice_and_their_reasons_are_shown(session: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "judged", judges=("offline", "strict"))
    shown = Page(session, write_report([run], run / "report.html"))
    shown.choose("show", "judges differ")
    assert shown.count().startswith("10 of 40")  # the second judge disagrees about every fourth
    assert "strict: compliance 0.5, coherence 1" in shown.rows()
    assert "strict has its reasons" in shown.rows()


def test_what_differs_from_the_base_is_marked_word_by_word(session: Any, page: Path) -> None:
    shown = Page(session, page)
    shown.choose("kind", "declined")
    shown.press("d")
    cell = session.find_elements("css selector", ".row .cell")[1]
    gone, come = (
        [node.get_attribute("textContent") for node in cell.find_elements("css selector", tag)] for tag in ("del", "ins")
    )
    assert (gone, come) == (["I can't see it."], ["On table 1."])


def test_arrows_turn_pages_and_a_slash_searches(session: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    shown = Page(session, page)
    shown.press(Keys.ARROW_RIGHT)
    assert shown.count().endswith("11 to 20 shown")
    shown.press(Keys.ARROW_LEFT)
    assert shown.count().endswith("1 to 10 shown")
    shown.press("/")
    assert session.switch_to.active_element.get_attribute("name") == "text"


def test_a_place_of_the_browser_is_an_address(session: Any, page: Path) -> None:
    shown = Page(session, page)
    shown.choose("kind", "answerable")
    shown.type("text", "key 4?")
    address = session.execute_script("return location.hash")
    session.get("about:blank")
    session.get(page.resolve().as_uri() + address)
    shown.wait("return document.body.dataset.ready")
    assert shown.count().startswith("1 of 40")
    link = session.find_element("css selector", ".prompt a").get_attribute("href")
    session.get("about:blank")
    session.get(link)
    shown.wait("return document.querySelector('.row.chosen')")
    assert "Where is my key 4?" in session.find_element("css selector", ".row.chosen").text


def test_a_point_of_the_chart_leads_to_its_responses(session: Any, page: Path) -> None:
    shown = Page(session, page)
    session.execute_script("document.querySelectorAll('.chart a')[1].dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    wait_for(lambda: shown.count().startswith("30 of 40"))
    assert session.execute_script("return document.querySelector('form').variant.value") == "smollm2_135m_k1"


def test_own_responses_are_shown_after_one_consent_for_the_page(session: Any, own_run: Path) -> None:
    shown = Page(session, write_report([own_run], own_run / "report.html"))
    shown.choose("kind", "declined")
    assert "On table" not in shown.rows()
    button = session.find_element("name", "consent")
    assert button.text == "Show the 30 responses that were not declined, on the whole page"
    button.click()
    assert shown.rows().count("On table") == 10
    shown.press("\ue014")  # the next page asks no more
    assert shown.rows().count("On table") == 10


def test_a_search_does_not_find_what_is_hidden(session: Any, own_run: Path) -> None:
    shown = Page(session, write_report([own_run], own_run / "report.html"))
    shown.type("text", "on table 7.")
    assert shown.count().startswith("0 of 40")


def test_a_table_sorts_by_a_column_as_numbers(session: Any, page: Path) -> None:
    Page(session, page)
    heading = next(cell for cell in session.find_elements("css selector", "th") if cell.text == "declined")
    heading.click()
    first = session.execute_script("return arguments[0].closest('table').tBodies[0].rows[0].cells[0].textContent", heading)
    assert first == "smollm2_135m_k1"
    heading.click()
    first = session.execute_script("return arguments[0].closest('table').tBodies[0].rows[0].cells[0].textContent", heading)
    assert first == "base"


def test_a_table_can_be_copied_as_the_terminal_would_print_it(session: Any, page: Path, run_dir: Path) -> None:
    Page(session, page)
    table = figure_tables(read_run(run_dir).summary)[0]
    found = session.execute_script("return JSON.parse(document.querySelector('script.forms').textContent)")
    assert found == {"csv": as_csv(table), "markdown": as_markdown(table), "latex": as_latex(table)}


@pytest.mark.parametrize("width", [500, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_every_width_and_has_contrast_by_day_and_night(
    session: Any, page: Path, width: int, scheme: str, tmp_path: Path
) -> None:
    session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    session.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    )
    Page(session, page)
    over = session.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    colours = session.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    session.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert over <= 0
    ink, paper = (luminance(colour) for colour in colours)
    assert (ink < paper) == (scheme == "light")
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 7  # WCAG 2.2, AAA


def luminance(colour: str) -> float:
    """WCAG's relative luminance of rgb(r, g, b)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


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
    assert data is not None
    assert (len(data["prompts"]), data["total"]) == (10, 40)
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


def test_of_several_runs_a_damaged_one_is_named_and_the_rest_is_shown(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run_dir, broken)
    (broken / "manifest.json").write_text("{")
    page = write_report([run_dir, broken, run_dir], tmp_path / "page.html")
    assert f"left out: {broken / 'manifest.json'}" in capsys.readouterr().err
    assert page.read_text().count("<section") == 1


def test_a_study_of_another_version_is_left_out_aloud(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old"
    shutil.copytree(run_dir, old)
    write_json(old / "geometry.json", {"format": 0})
    assert read_run(old).studies == {} and "geometry.json is of another version" in capsys.readouterr().err
