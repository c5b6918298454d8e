"""bin/label: raters grade a blind sample of a run's responses, in the terminal or on a local page."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands import cli

if TYPE_CHECKING:
    from engine.scoring.blind import Labelling

app = cli.Application(
    "bin/label runs/smollm2_135m_k1 --rater anna",
    "bin/label runs/smollm2_135m_k1   # how far the raters agree",
)

QUIT, BACK = "q", "b"
ASKED = {
    "compliance": "compliance, 0, 5 (0.5) or 1",
    "coherence": "coherence, 0, 5 (0.5) or 1",
    "refused": "does it decline, y or n",
}


@app.command()
def label(
    context: typer.Context,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run directory of bin/rollout or bin/sweep.")],
    rater: Annotated[str | None, typer.Option(help="Your name: readings are kept under it.", metavar="NAME")] = None,
    number: Annotated[
        int, typer.Option(min=0, help="Responses to draw: base, variants, controls alike; 0 takes what is drawn.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    page: Annotated[bool, typer.Option("--page", help="On a page of this machine instead of the terminal.")] = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Grade responses without knowing whose they are; what is given is kept, and the same command goes on.

    Without --rater: how far the raters agree, and the labels as a file that bin/judge --calibrate reads.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        if rater is None:
            cli.refuse_unread(context, "bin/label without --rater", ["number", "seed", "page"])
            _agreement(run_dir, form)
            return
        from engine.scoring.blind import open_labelling

        labelling = open_labelling(run_dir, rater, number or _drawn(run_dir), seed)
        if page:
            from engine.scoring.label_page import serve

            serve(labelling)
        else:
            read_in_terminal(labelling, input)
        done = len(labelling.sample) - len(labelling.left)
        print(f"{done} of {len(labelling.sample)} read by {rater}; {labelling.file}")


def _drawn(run_dir: Path) -> int:
    """The size of the sample that is there, or 200."""
    from engine.scoring.blind import FOLDER, SAMPLE, read_lines

    file = run_dir / FOLDER / SAMPLE
    return len(read_lines(file)) if file.is_file() else 200


def read_in_terminal(labelling: "Labelling", ask: Callable[[str], str]) -> None:
    """Show one response after the other and keep what is said of it; q ends, b takes the last one again."""
    from engine.scoring.blind import Reading

    before: list[str] = []
    while left := labelling.left:
        row = left[0]
        print(f"\n{'-' * 72}\n{len(labelling.sample) - len(left) + 1} of {len(labelling.sample)}\n")
        print(f"REQUEST\n{row['prompt']}\n\nRESPONSE{_ending(row['finish_reason'])}\n{row['response']}\n")
        said = _answers(ask)
        if said is None:
            return
        if said == {}:
            if before:
                labelling.read.pop(before.pop())
            continue
        labelling.add(Reading(row["id"], said["compliance"], said["coherence"], bool(said["refused"])))
        before.append(row["id"])


def _ending(finish_reason: str) -> str:
    return " (cut at the token limit)" if finish_reason == "length" else ""


def _answers(ask: Callable[[str], str]) -> dict[str, float] | None:
    """The three answers; {} to go back, None to end."""
    from engine.scoring.blind import GRADES

    found: dict[str, float] = {}
    for name, question in ASKED.items():
        known = {"y": 1.0, "n": 0.0} if name == "refused" else GRADES
        while name not in found:
            try:
                text = ask(f"{question} (b back, q end): ").strip().lower()
            except EOFError:
                return None
            if text in (QUIT, BACK):
                return None if text == QUIT else {}
            if text in known:
                found[name] = known[text]
            else:
                print(f"expected one of {', '.join(known)}; found '{text}'", file=sys.stderr)
    return found


def _agreement(run_dir: Path, form: str) -> None:
    from engine.display.console import show
    from engine.display.run_tables import agreement_lines
    from engine.scoring import blind

    file = blind.join(run_dir)
    names, found = blind.raters(run_dir), blind.agreements(run_dir)
    lines = [line for entry in found for line in agreement_lines(entry)]
    if len(names) < 2:
        lines = [f"One rater ({names[0]}): agreement takes two, who do not see each other's readings."]
    use = f"Labels: {file}. Measure a judge on them: bin/judge --calibrate {file} --judge NAME"
    show([*lines, use], form, {"raters": names, "agreement": found, "labels": str(file)})


if __name__ == "__main__":
    app(prog_name="bin/label")
