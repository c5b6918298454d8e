"""bin/bench: what an edit costs in ability, by lm-eval's tasks, base and variants in one engine."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.commands import cli
from engine.errors import EngineError
from engine.paths import user_path

app = cli.Application(
    "bin/bench --variant smollm2_135m_k1 --tasks everyday",
    "bin/bench --variant smollm2_135m_k1 --tasks arc_easy --data arc_easy=arc.jsonl",
)


@app.command()
def bench(
    context: typer.Context,
    variant: Annotated[list[str] | None, typer.Option("--variant", metavar="NAME", help="A variant; again for several.")] = None,
    tasks: Annotated[
        str, typer.Option(help="lm-eval tasks with commas, mmlu_* and YAML files too; everyday ships with this project.")
    ] = "everyday",
    limit: Annotated[int | None, typer.Option(min=1, help="Documents of each task, from its start.")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Examples before each question, instead of the task's own.")
    ] = None,
    chat_template: Annotated[bool, typer.Option("--chat-template", help="Ask through the model's chat template.")] = False,
    include_path: Annotated[Path | None, typer.Option(help="Folder with more lm-eval tasks.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK=FILE", help="A local file, a folder with one for each split, or one that datasets saved."),
    ] = None,
    server: Annotated[str | None, typer.Option(help="Ask an endpoint (.../v1) that serves base and variants instead.")] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Requests under way at once, with --server.")] = 8,
    margin: Annotated[float, typer.Option(help="Difference that counts as none: a share, 0.02 for 2 points.")] = 0.02,
    layers: cli.LayersOption = None,
    alpha: cli.AlphaOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    out: Annotated[Path | None, typer.Option(help="Where bench.json and bench.parquet go; the default is runs/NAME.")] = None,
    dry_run: cli.DryRunOption = False,
    form: cli.FormatOption = "text",
    as_json: cli.JsonOption = False,
) -> None:
    """Score base and variants on lm-eval's tasks in one engine, and compare them document by document.

    Writes bench.json and bench.parquet (a row a document) into the first variant's run directory.
    """
    cli.keep_stdout_clean()
    os.environ.setdefault("TQDM_DISABLE", "1")  # of datasets and others; what is wanted is asked for by name
    with cli.user_errors():
        form = cli.check_form(form, as_json)
        if server is None:
            cli.refuse_unread(context, "bin/bench without --server", ["concurrent"])
        from engine.configs.load import load_config
        from engine.lmeval.equivalence import check_margin

        check_margin(margin)
        overrides = cli.variant_overrides(settings, layers, alpha, model, pairs, columns=columns, template=template)
        configs = [load_config(each, overrides) for each in cli.named(variant)]
        folder = user_path(include_path).absolute() if include_path else None
        asked = {"tasks": cli.items(tasks), "include": folder, "data": files_of(data), "server": server}
        if dry_run:
            shown = {**asked, "include": folder and str(folder), "data": data, "margin": margin}
            cli.show_dry_run(configs[0], shown, others=configs)
            return
        from engine.display.ability import bench_view
        from engine.display.console import show
        from engine.lmeval.bench import BenchOptions
        from engine.lmeval.job import run_bench

        options = BenchOptions(limit, num_fewshot, chat_template, margin)
        result = run_bench(configs, asked, options, concurrent=concurrent, out=out)
        show(bench_view(result), form, result)


def files_of(data: list[str] | None) -> dict[str, Any]:
    found = {}
    for part in data or []:
        task, equals, file = part.partition("=")
        if not equals or not task:
            raise EngineError(f"--data takes TASK=FILE, such as arc_easy=arc.jsonl; found '{part}'.")
        found[task] = user_path(file).absolute()
    return found


if __name__ == "__main__":
    app(prog_name="bin/bench")
