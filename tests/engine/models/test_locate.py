"""From a name to a folder: what is no model is named with what to give instead."""

from pathlib import Path

import pytest

from engine.configs.schema import ModelConfig
from engine.errors import EngineError
from engine.models.locate import locate_model


def test_the_outer_folder_of_a_hub_cache_names_its_snapshots(tmp_path: Path) -> None:
    outer = tmp_path / "models--org--name"
    (outer / "snapshots" / "abc").mkdir(parents=True)
    with pytest.raises(EngineError, match=r"a folder of the hub's cache, not a model. Give one of its snapshots: .*/abc\.$"):
        locate_model(ModelConfig(path=str(outer)))


def test_a_home_folder_of_nobody_is_no_model() -> None:
    with pytest.raises(EngineError, match="Model folder ~nosuchuser/model does not exist"):
        locate_model(ModelConfig(path="~nosuchuser/model"))
