"""BIG-bench's own task.json files as the columns that lm-eval's bigbench tasks read.

Their form is that of google/BIG-bench, benchmark_tasks/NAME/task.json (also in the source distribution of PyPI's `bigbench`), and
the text is put together as in its `json_task.py`: prefix, input, the choices in a drawn order where the task shows them, prefix
of the answer.
"""

import json
import random
from pathlib import Path

from engine.errors import EngineError
from engine.runs.schemas import Row

HUB_NAME = "hails/bigbench"
SEED = 42


def read_bigbench(file: Path) -> list[Row]:
    """A row an example with `inputs`, `targets`, `multiple_choice_targets`, `multiple_choice_scores`; the last two are empty
    where an example is to be answered freely.

    Raises EngineError where the file is no BIG-bench task.
    """
    try:
        task = json.loads(file.read_text(encoding="utf-8-sig"))
        rng = random.Random(SEED)
        return [_row(task, example, rng) for example in task["examples"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineError(
            f"{file} is no task of BIG-bench ({type(error).__name__}: {error}). Expected its task.json, whose `examples` have "
            "`input`, and `target_scores` or `target`."
        ) from None


def _row(task: Row, example: Row, rng: random.Random) -> Row:
    scores: dict[str, float] = dict(example.get("target_scores", {}))
    shown = ""
    if scores and task.get("append_choices_to_input", True):
        between = task.get("choice_prefix", "\n  choice: ")
        shown = "".join(between + choice for choice in rng.sample(sorted(scores), len(scores)))
    asked = task.get("example_input_prefix", "\nQ: ") + example["input"] + shown + task.get("example_output_prefix", "\nA: ")
    targets = example["target"] if not scores or "target" in example else max(scores, key=lambda choice: scores[choice])
    return {
        "inputs": (task.get("task_prefix", "") + asked).strip(),
        "targets": [target.strip() for target in ([targets] if isinstance(targets, str) else targets)],
        "multiple_choice_targets": [choice.strip() for choice in scores],
        "multiple_choice_scores": list(scores.values()),
    }
