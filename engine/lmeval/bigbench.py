"""BIG-bench's own task.json files as the columns that lm-eval's bigbench tasks read.

Their form is that of google/BIG-bench, benchmark_tasks/NAME/task.json (also in the source distribution of PyPI's `bigbench`), and
the text is put together as in its `json_task.py`: prefix, input, the choices in a drawn order where the task shows them, prefix
of the answer.
"""

import json
import random
from pathlib import Path
from typing import Any

from engine.errors import EngineError

HUB_NAME = "hails/bigbench"
SEED = 42
Row = dict[str, Any]


def read_bigbench(file: Path) -> list[Row]:
    """A row an example with `inputs`, `targets`, `multiple_choice_targets`, `multiple_choice_scores`.

    Raises EngineError where the file is no BIG-bench task, or one without choices.
    """
    try:
        task = json.loads(file.read_text())
        examples = [(example["input"], dict(example["target_scores"])) for example in task["examples"]]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise EngineError(
            f"{file} is no multiple-choice task of BIG-bench ({type(error).__name__}: {error}). Expected its task.json, whose "
            "`examples` have `input` and `target_scores`."
        ) from None
    rng = random.Random(SEED)
    return [_row(task, text, scores, rng) for text, scores in examples]


def _row(task: Row, text: str, scores: dict[str, float], rng: random.Random) -> Row:
    shown = ""
    if task.get("append_choices_to_input", True):
        between = task.get("choice_prefix", "\n  choice: ")
        shown = "".join(between + choice for choice in rng.sample(sorted(scores), len(scores)))
    asked = task.get("example_input_prefix", "\nQ: ") + text + shown + task.get("example_output_prefix", "\nA: ")
    return {
        "inputs": (task.get("task_prefix", "") + asked).strip(),
        "targets": [max(scores, key=lambda choice: scores[choice]).strip()],  # the first of the best
        "multiple_choice_targets": [choice.strip() for choice in scores],
        "multiple_choice_scores": list(scores.values()),
    }
