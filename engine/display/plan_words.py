"""A dry run in words: a table of stages, then disk, judge, time and where to go on."""

from typing import Any

from engine.display.table import Row, Table, View
from judging.attempts import duration


def plan_view(plan: Row) -> View:
    """The stages of a plan, and what they take."""
    rows = [_cells(stage) for stage in plan["stages"]]
    table = Table(f"{plan['command']} into {plan['folder']}", ["stage", "state", "amount", "tokens", "time here"], rows)
    disk = f"Disk: {plan['needed_bytes'] / 1e6:,.1f} MB at most, of {plan['free_bytes'] / 1e9:,.1f} GB free."
    config = plan["config"]
    what = f"{config['variant']}: {config['model']['path']} in {config['model']['dtype']}."
    rough = any(stage["basis"] == "rough" for stage in plan["stages"])
    time = f"Time: about {duration(plan['seconds'])} on this machine" + (
        "; rough, as this model has not run all of it here." if rough else ", by what ran here before."
    )
    return [what, table, disk, *_judge(plan["judge"]), time, "Nothing was written or sent. bin/config shows every setting."]


def _cells(stage: Row) -> list[str]:
    most = "at most " if stage["name"].startswith("rollouts") else ""
    tokens = f"{most}{stage['tokens']:,}" if stage["name"] != "scores" else "-"
    seconds = "-" if stage["state"] == "done" else f"{duration(stage['seconds'])}"
    return [stage["name"], stage["state"], stage["amount"], tokens, seconds]


def _judge(judge: dict[str, Any]) -> list[str]:
    if "calls" not in judge:
        return [f"Judge: {judge['name']}; no calls, no cost."] if judge else []
    cost = "the price is not known"
    if judge["likely_cost"] is not None:
        cost = f"about {judge['likely_cost']:.2f} {judge['currency']}, at most {judge['most_cost']:.2f}"
    calls = f"{judge['calls']:,} calls, about {judge['prompt_tokens']:,} prompt tokens; {cost}"
    return [f"Judge: {judge['name']}, {calls}; about {duration(judge['seconds'])} ({judge['limited_by']})."]
