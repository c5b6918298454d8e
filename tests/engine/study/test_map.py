"""bin/map from sets to a page: streams of a tiny model, answers of a planted one that declines what has a "!" in it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.configs.load import changed
from engine.configs.schema import RunConfig, SamplingConfig
from engine.display.map_tables import map_sentences, map_view
from engine.display.table import Table
from engine.errors import EngineError
from engine.inference.replica import Generation
from engine.report.page import report
from engine.scoring.grader import TEXT_ONLY, OfflineGrader
from engine.study.jobs import map_refusals
from engine.study.map import MapOptions, make_map
from engine.study.map_geometry import own_part, share_of_mean, shared_unit
from engine.study.opening import Study, open_study
from engine.study.refusal_sets import load_sets
from extraction.between_kinds import OfKind
from extraction.directions import Streams
from tests.small_run import SmallReplica, config_of, make_inputs

BASE = {"base", "random 1", "random 2"}
SPLITS = {"train": 8, "selection": 4, "test": 8}
WORDS = ("Open", "Shut", "Turn", "Lift", "Hold", "Move", "Read", "Send")


class Planted(SmallReplica):
    """The base declines what has a "!"; removing any kind's direction ends that, and a random direction does not."""

    def generate(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, **options: Any) -> Iterator[Generation]:
        assert self.current is not None
        mark = 4 + ord("!") - 32
        for index, prompt in enumerate(prompts):
            declines = mark in prompt and self.current.name in BASE
            text = "I'm sorry, but I can't do that." if declines else f"Here it is, the {index}th thing that was asked for."
            yield Generation(index, text, [5, 6, 7], "stop", -1.0)

    def forget_prompts(self) -> None:
        pass


def write_sets(folder: Path) -> Path:
    """Two kinds that are declined, and one whose twins are declined as well."""
    folder.mkdir()
    for place, kind in enumerate(("doors", "lamps", "both")):
        for split, count in SPLITS.items():
            rows = []
            for number in range(count):
                request = f"{WORDS[number]} the {split} {kind} {place}"
                twin = request + (" now!" if kind == "both" else ", how?")
                rows.append({"declined": f"{request}!", "answered": twin, "category": f"{split} {number // 2}"})
            (folder / f"{kind}_{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("map")
    make_inputs(folder)
    pairs = [[f"Call {number}.", f"What is {number}?"] for number in range(8)]
    (folder / "many.json").write_text(json.dumps(pairs[:5]))
    (folder / "others.json").write_text(json.dumps([[f"Ring {number}.", f"Who is {number}?"] for number in range(3)]))
    write_sets(folder / "sets")
    return folder


def config_for(folder: Path) -> RunConfig:
    data = {"data.train_pairs": str(folder / "many.json"), "data.selection_pairs": str(folder / "others.json")}
    return changed(config_of(folder, given=False), {**data, "data.num_pairs": None}, "the test")


def options(folder: Path, **other: Any) -> MapOptions:
    chosen = {"sets": folder / "sets", "kinds": (), "layers": (2,), "least": 0.2, "controls": 2, "max_tokens": 8}
    return MapOptions(**(chosen | other))


def opened(folder: Path, out: Path) -> Study:
    study = open_study(config_for(folder), out)
    study.session.use(Planted())  # type: ignore[arg-type]
    return study


@pytest.fixture(scope="module")
def study(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return opened(folder, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def found(folder: Path, study: Study) -> dict[str, Any]:
    with study.run_dir.locked():
        return study.run("map", {}, lambda: make_map(study, options(folder), OfflineGrader(name=TEXT_ONLY)))


def test_kinds_that_the_base_declines_are_in_the_map(found: dict[str, Any]) -> None:
    assert found["mapped"] == ["doors", "lamps"]


def test_a_kind_whose_twins_are_declined_too_is_left_out_and_said(found: dict[str, Any]) -> None:
    assert map_sentences(found)[0].endswith("or declines their twins too: both.")


def test_the_table_has_a_row_for_each_removal(found: dict[str, Any]) -> None:
    whats = [row["what"] for row in found["table"]]
    assert whats == ["base", "kind", "kind", "shared", "all", "own part", "own part", "random", "random"]


def test_the_base_declines_every_test_request_of_a_kind(found: dict[str, Any]) -> None:
    assert [part["value"] for part in found["table"][0]["declined"].values()] == [1.0, 1.0]


def test_removing_one_kind_is_watched_in_the_other(found: dict[str, Any]) -> None:
    assert found["table"][1]["declined"]["lamps"]["value"] == 0.0


def test_the_random_band_is_that_of_the_draws(found: dict[str, Any]) -> None:
    assert found["random_band"] == {"doors": [1.0, 1.0], "lamps": [1.0, 1.0]}


def test_one_knob_that_was_planted_is_found(found: dict[str, Any]) -> None:
    assert found["claims"]["knob"]["answer"] == "one knob"


def test_cosines_are_told_at_every_layer(found: dict[str, Any]) -> None:
    assert np.array(found["by_layer"]["cosines"]).shape == (3, 2, 2)


def test_each_kind_reads_what_is_asked_at_two_positions(found: dict[str, Any]) -> None:
    read = ["last_instruction", "last"]
    assert {kind: list(parts) for kind, parts in found["reading"].items()} == {"doors": read, "lamps": read}


def test_where_every_request_is_declined_nothing_is_done_apart(found: dict[str, Any]) -> None:
    assert found["reading"]["doors"]["last"]["done"] is None


def test_the_view_has_four_tables(found: dict[str, Any]) -> None:
    assert [type(part) for part in map_view(found)][:4] == [Table] * 4


def test_the_page_shows_the_table(found: dict[str, Any], study: Study) -> None:
    page = report([study.run_dir.path], study.run_dir.path / "page.html")
    assert "Remove the row, watch the column" in page.read_text()


def test_the_page_answers_the_claim(found: dict[str, Any], study: Study) -> None:
    page = report([study.run_dir.path], study.run_dir.path / "page.html")
    assert "One knob: one knob." in page.read_text()


def test_several_layers_are_tried_on_selection_requests(folder: Path, tmp_path: Path) -> None:
    study = opened(folder, tmp_path / "run")
    with study.run_dir.locked():
        made = make_map(study, options(folder, layers=(1, 2)), OfflineGrader(name=TEXT_ONLY))
    assert [row["layer"] for row in made["layers_tried"]] == [1, 2]


def test_a_model_that_declines_nothing_is_told_what_to_change(folder: Path, tmp_path: Path) -> None:
    study = opened(folder, tmp_path / "run")
    with (
        study.run_dir.locked(),
        pytest.raises(EngineError, match=r"declines none of the kinds in 20% .*both 1.00.*Lower --least"),
    ):
        make_map(study, options(folder, kinds=("both",)), OfflineGrader(name=TEXT_ONLY))


@pytest.mark.parametrize(
    ("kinds", "message"),
    [(["windows"], "There is no kind of refusal 'windows'; there are both, doors, lamps"), ([], "is not a folder")],
)
def test_sets_that_are_not_there_are_named_before_anything_else(
    folder: Path, kinds: list[str], message: str, tmp_path: Path
) -> None:
    sets = folder / ("sets" if kinds else "nowhere")
    with pytest.raises(EngineError, match=message):
        map_refusals(config_for(folder), tmp_path / "run", sets=str(sets), kinds=kinds, layers=[2])


def test_a_split_that_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    (tmp_path / "sets" / "doors_test.jsonl").unlink()
    with pytest.raises(EngineError, match="has 0 files called doors_test; expected one"):
        load_sets(tmp_path / "sets")


def test_a_prompt_of_two_splits_is_refused(folder: Path, tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    (tmp_path / "sets" / "doors_test.jsonl").write_bytes((tmp_path / "sets" / "doors_train.jsonl").read_bytes())
    with pytest.raises(EngineError, match="doors's train prompt"):
        load_sets(tmp_path / "sets")


def test_the_embedded_sets_come_in_their_named_order() -> None:
    assert [one.name for one in load_sets(None)][:3] == ["inability", "missing_information", "false_premise"]


def test_a_removal_says_how_much_of_the_streams_mean_it_takes(found: dict[str, Any]) -> None:
    assert all(0 < row["of_mean"] <= 1 for row in found["table"][1:])


def test_the_base_takes_nothing_of_the_mean(found: dict[str, Any]) -> None:
    assert found["table"][0]["of_mean"] == 0.0


def test_a_basis_that_holds_the_mean_takes_all_of_it() -> None:
    streams = Streams(*(torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (1, 2)))
    mean_H = torch.cat([streams.declined_LNH[1], streams.answered_LNH[1]]).mean(dim=0)
    basis_HK = torch.linalg.qr(torch.stack([mean_H, torch.ones(6, dtype=torch.float64)], dim=1)).Q
    assert share_of_mean(basis_HK, {"one": {"last": streams}}, "last", 1) == pytest.approx(1.0)


def test_an_own_part_is_orthogonal_to_the_other_kinds() -> None:
    units_KH = torch.nn.functional.normalize(
        torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    part_H = own_part(units_KH, 1)
    assert part_H is not None
    assert torch.allclose(units_KH[[0, 2]] @ part_H, torch.zeros(2, dtype=torch.float64), atol=1e-12)


def test_a_kind_inside_the_others_span_has_no_part_of_its_own() -> None:
    first, second = torch.eye(4, dtype=torch.float64)[:2]
    assert own_part(torch.stack([first, second, (first + second) / 2**0.5]), 2) is None


def test_what_two_like_kinds_share_is_their_direction() -> None:
    rng = np.random.default_rng(1)
    direction_H = np.zeros(16)
    direction_H[3] = 5.0
    kinds = [OfKind(direction_H + rng.normal(0, 0.2, (24, 16)), [f"t{place % 8}" for place in range(24)]) for _ in range(2)]
    units_KH = torch.nn.functional.normalize(
        torch.stack([torch.from_numpy(kind.differences_NH.mean(axis=0)) for kind in kinds]), dim=-1
    )
    assert abs(float(shared_unit(units_KH, kinds)[3])) > 0.99
