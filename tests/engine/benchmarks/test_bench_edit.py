"""What bin/bench-edit measures, on a real model: memory of a tensor, not of a model."""

from pathlib import Path

from engine.benchmarks.edit import _edit


def test_an_edit_holds_a_tensor_in_memory_and_not_the_model(smollm2_dir: Path, tmp_path: Path) -> None:
    measured = _edit(smollm2_dir, tmp_path / "out", 3)
    print(f"peak beyond the imports: {measured['rss_kb'] / 1000:.0f} MB, for a model of 269 MB")
    assert measured["rss_kb"] < 100_000
    assert measured["worst"] < 0.005
