"""bin/new: a variant's file for a model of one's own, every key in it with its sentence, looked at before it is written."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands import cli
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.configs.schema import RunConfig

app = cli.Application(
    "bin/new mine --model /models/mine --pairs pairs.csv --requests requests.csv --layers 16",
    "bin/rollout --variant mine   # then, in the same folder",
)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What to call the variant; NAME.toml is written into the current folder.")],
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    requests: cli.RequestsOption = None,
    answerable: cli.AnswerableOption = None,
    layers: cli.LayersOption = None,
    alpha: cli.AlphaOption = None,
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(show_default="NAME.toml", help="The file to write.")] = None,
) -> None:
    """Write a variant's file for your own model and prompts, after a look at both, as bin/doctor has it.

    What you give stands in the file; every other key stands there as a comment, with its default and what it means.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.configs.keys import annotated_toml
        from engine.configs.load import load_without_file

        chosen = cli.variant_overrides(
            settings,
            layers,
            alpha,
            model,
            pairs,
            columns=columns,
            template=template,
            judge=judge,
            data__test_requests=cli.existing_or_embedded(requests),
            data__test_answerable=cli.existing_or_embedded(answerable),
        )
        file = out or Path(f"{name}.toml")
        if file.exists():
            raise EngineError(f"{file} exists. Name another with --out, or remove it.")
        config = load_without_file({**chosen, "variant": name})
        _look(config)
        from engine.paths import write_text

        config = config.model_copy(update={"description": f"{name}, a model of one's own"})
        write_text(file, annotated_toml(config, {"description", "directions.layers", *chosen}, _heading(name)))
        print(f"{file} written. Next: {_next(name, file, found=config.directions.layers != 'sweep')}")


def _look(config: "RunConfig") -> None:
    """Raise EngineError for a model that cannot be used, or prompts that cannot be read."""
    from engine.runs.doctor import examine
    from engine.runs.of_config import doctor_knows
    from engine.runs.requests import read_prompts

    read_prompts(config.data, config.sweep.seed)
    found = examine(config.model)
    if found.against:
        with doctor_knows(config.model.path):
            raise EngineError("\n".join(found.against))


def _heading(name: str) -> str:
    return (
        f"{name}: made by bin/new. A key behind # has its default; take the # away to change it. Paths are relative to this "
        "file. bin/config shows every key and what it means."
    )


def _next(name: str, file: Path, *, found: bool) -> str:
    asked = name if file == Path(f"{name}.toml") else str(file)
    return f"bin/rollout --variant {asked}" if found else f"bin/sweep --variant {asked}, which finds the layer"


if __name__ == "__main__":
    app(prog_name="bin/new")
