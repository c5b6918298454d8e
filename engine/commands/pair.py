"""bin/pair: answerable twins for prompts that models decline."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/pair declined.json --judge deepseek --out pairs.json",
)


@app.command()
def pair(
    prompts: Annotated[
        str, typer.Argument(metavar="PROMPTS", help="Your prompts that models decline: text, JSON, JSONL, CSV, TSV, Parquet.")
    ],
    column: Annotated[
        str | None, typer.Option("--columns", metavar="NAME", help="The column of the prompts in their file.")
    ] = None,
    judge: Annotated[
        str, typer.Option("--judge", metavar="NAME", help="A judge with an endpoint, which writes the twins.")
    ] = "deepseek",
    out: Annotated[Path | None, typer.Option(help="File to write; the default is PROMPTS with .pairs.json.")] = None,
    tries: Annotated[int, typer.Option(min=1, help="How often to ask, with what was wrong, before a prompt is left out.")] = 3,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Stop before the calls can cost more than this.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of the judge's file: endpoint.model=NAME.")
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Ask for an answerable twin of each prompt, which keeps topic and wording and differs in intent; write checked pairs.

    The declined side is your own text as it is. A prompt without a twin that passes the checks goes to OUT.rejected.json.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.scoring.twins import make_pairs

        target = out or Path(prompts.removeprefix("embedded:")).with_suffix(".pairs.json")
        overrides = cli.parse_settings(settings)
        result = make_pairs(prompts, judge, target, tries=tries, max_cost=max_cost, overrides=overrides, column=column)
        if as_json:
            cli.print_json(result)
        else:
            print(f"{result['pairs']} of {result['prompts']} prompts have a twin{': ' + result['out'] if result['out'] else ''}")
            if result["rejected"]:
                print(f"{result['rejected']} have none, with the reasons: {result['rejected_out']}")
        if result["stopped"]:
            print(f"stopped: {result['stopped']}; answers so far are cached")
            raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="bin/pair")
