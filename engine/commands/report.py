"""bin/report: one page from one run directory or several."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/report runs/smollm2_135m_k1",
    "bin/report runs/a runs/b --out comparison.html",
)


@app.command()
def report(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Folders that bin/rollout or bin/sweep made.")],
    out: Annotated[Path | None, typer.Option(help="The page; the default is report.html in the one run, or here.")] = None,
    prompts: Annotated[
        int | None,
        typer.Option(min=0, show_default="all", help="Prompts of each kind in the browser of responses; 0 leaves it out."),
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Write one self-contained HTML page: tables with intervals, plots, every response.

    Beside it: each plot in plots/ as SVG and PNG, and the study's table as LaTeX.

    Several runs in one page give a table across models.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.report import page as pages
        from engine.runs.files import REPORT

        page = pages.report(run_dirs, out or (run_dirs[0] / REPORT if len(run_dirs) == 1 else Path(REPORT)), prompts=prompts)
        size = page.stat().st_size
        if as_json:
            cli.print_json({"report": str(page), "bytes": size, "runs": [str(path) for path in run_dirs]})
        else:
            print(f"{page} ({size / 1e6:.1f} MB)" if size >= 1e6 else f"{page} ({size / 1e3:.0f} kB)")


if __name__ == "__main__":
    app(prog_name="bin/report")
