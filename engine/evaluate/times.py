"""Where a sweep's time went, kept over interruptions."""

from pathlib import Path

from engine.paths import write_json
from engine.runs.json_reader import read_json


class Times:
    """Seconds and tokens, kept in the run directory over interruptions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.totals: dict[str, float] = read_json(path) if path.is_file() else {}

    def add(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.totals[name] = round(self.totals.get(name, 0) + amount, 3)
        write_json(self.path, self.totals)
