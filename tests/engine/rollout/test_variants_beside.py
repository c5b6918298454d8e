"""Where the directions of a variant go whose run directory is of another configuration."""

from pathlib import Path

import pytest

from engine.rollout.variants import variants_of
from engine.runs.session import Session
from tests import small_run


def test_directions_of_another_configuration_go_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "inputs"
    small_run.make_inputs(folder)
    monkeypatch.chdir(tmp_path)
    small_run.rollout(folder, Path("runs/smollm2_135m_k1"))
    before = (tmp_path / "runs/smollm2_135m_k1/manifest.json").read_bytes()
    (variant,) = variants_of([Session(small_run.config_of(folder, given=False))])
    assert variant.name == "smollm2_135m_k1"
    assert "these go to runs/smollm2_135m_k1-" in capsys.readouterr().err
    assert (tmp_path / "runs/smollm2_135m_k1/manifest.json").read_bytes() == before
