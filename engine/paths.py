"""Where things are: the project, its configurations, the cache, runs."""

import os
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parent.parent
CONFIG_DIR = PROJECT_DIR / "configs"


def cache_dir() -> Path:
    """Converted models and file hashes: REFUSAL_ROLLOUT_CACHE, else .cache in the project."""
    return Path(os.environ.get("REFUSAL_ROLLOUT_CACHE") or PROJECT_DIR / ".cache").expanduser()


def default_run_dir(variant: str) -> Path:
    """runs/<variant> under the current directory."""
    return Path("runs") / variant
