"""bin/doctor: what a model folder is, and whether everything here works on it."""

from dataclasses import asdict
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/doctor embedded:smollm2-135m-instruct",
    "bin/doctor /models/mine --json",
)


@app.command()
def doctor(
    model: Annotated[
        str, typer.Argument(help="A folder, a hub repository in the cache, an embedded model, or a name in configs/.")
    ],
    template: cli.TemplateOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Say in seconds, without loading weights, what a model is and whether it can be used here.

    Family and writers, head, template, positions, window, precision, vLLM, memory, and the command to try next. Exits with 2
    where something stands against using it.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.configs.load import load_model
        from engine.display.console import show
        from engine.display.doctor_words import doctor_view
        from engine.runs.doctor import examine

        chosen = {"model.chat_template": cli.existing_or_embedded(template), **cli.parse_settings(settings)}
        found = examine(load_model(model, {key: value for key, value in chosen.items() if value is not None}))
        show(doctor_view(found.model, found.facts, found.against, found.next), form, asdict(found))
        if found.against:
            raise typer.Exit(2)


if __name__ == "__main__":
    app(prog_name="bin/doctor")
