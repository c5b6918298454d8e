"""bin/compare: other people's checkpoints, merges and LoRAs against their base, in one engine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/compare smollm2_135m_k1 /models/theirs /models/a-lora",
    "bin/compare /models/base /models/theirs --num-requests 100 --out runs/compared",
)


@app.command()
def compare(
    base: Annotated[str, typer.Argument(help="The base: a folder, a hub repository, or a variant in configs/.")],
    folders: Annotated[list[str], typer.Argument(help="Checkpoints and LoRAs that were made from it.", metavar="FOLDER...")],
    name: cli.NameOption = None,
    directions: cli.DirectionsOption = None,
    num_requests: Annotated[int | None, typer.Option(help="How many test requests, from the top of the file.")] = None,
    num_answerable: Annotated[int | None, typer.Option(help="How many answerable test requests; 0 leaves them out.")] = None,
    num_kl: Annotated[int, typer.Option(help="Requests on which the KL is measured; 0 leaves it out.")] = 64,
    tasks: Annotated[str, typer.Option(help="lm-eval tasks with commas, as bin/bench takes them.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Documents of each task, from its start.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="TASK=FILE", help="A local file or folder in place of a task's data set.")
    ] = None,
    requests: cli.RequestsOption = None,
    answerable: cli.AnswerableOption = None,
    columns: cli.ColumnsOption = None,
    template: cli.TemplateOption = None,
    kinds: cli.KindsOption = None,
    judge: cli.JudgeOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(help="Run directory; the default is runs/compare-BASE.")] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Throw away what an earlier run left in the run directory.")] = False,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Say of each folder whether it is whole, what was done to it, and how it behaves beside its base.

    Only tensors that differ are exchanged in one engine; what it cannot hold gets one of its own. Run it again to continue.
    """
    cli.keep_stdout_clean()
    os.environ.setdefault("TQDM_DISABLE", "1")
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        from engine.configs.load import load_config, load_without_file, variant_names
        from engine.paths import default_run_dir, user_path

        chosen = cli.variant_overrides(
            settings,
            None,
            None,
            None,
            None,
            columns=columns,
            template=template,
            judge=judge,
            name=name,
            data__test_requests=cli.existing_or_embedded(requests),
            data__test_answerable=cli.existing_or_embedded(answerable),
            data__num_requests=num_requests,
            data__num_answerable=num_answerable,
            data__kinds=kinds,
        )
        known = base.endswith(".toml") or base in variant_names()
        model = {"model.path": cli.existing_or_embedded(base)}
        config = load_config(base, chosen) if known else load_without_file({**model, **chosen}, "bin/compare")
        if dry_run:
            cli.show_dry_run(config, {"folders": folders}, layers=False)
            return
        from engine.models.locate import open_model
        from engine.runs.of_config import doctor_knows

        with doctor_knows(config.model.path):
            open_model(config.model)
        from engine.compare.run import compare as run
        from engine.display.compare_tables import compare_view
        from engine.display.console import show

        given = None if directions is None else user_path(directions)
        path = out or default_run_dir(f"compare-{config.variant}")
        loaded = _tasks(tasks, limit, data) if tasks else None
        found = run(config, folders, path, directions=given, num_kl=num_kl, tasks=loaded, clean=clean)
        show(compare_view(found), form, found)


def _tasks(names: str, limit: int | None, data: list[str] | None) -> dict[str, object]:
    from engine.commands.bench import files_of
    from engine.lmeval.bench import check_limit
    from engine.lmeval.catalogue import check_few_shot, load_tasks

    tasks = load_tasks(cli.items(names), None, files_of(data))
    check_limit(tasks, limit)
    check_few_shot(tasks, None)
    return {"tasks": tasks, "limit": limit}


if __name__ == "__main__":
    app(prog_name="bin/compare")
