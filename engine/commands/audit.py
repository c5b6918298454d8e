"""bin/audit: what was erased from a checkpoint."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.commands import cli

app = cli.Application(
    "bin/audit edited",
    "bin/audit edited --base DIR",
)


@app.command()
def audit(
    directory: Annotated[Path, typer.Argument(help="Folder of the checkpoint to look at.")],
    base: Annotated[Path | None, typer.Option(help="The checkpoint it was made from, if you have it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write recovered directions here as safetensors.")] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Look for directions that were projected out of what the model can write; says what it found and what it cannot see."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        cli.check_checkpoints(directory, base)
        from engine.checkpoints.verify import audit_checkpoint

        report = audit_checkpoint(directory, base, out)
        if as_json:
            cli.print_json(report)
        else:
            _print(report)


def _print(report: dict[str, Any]) -> None:
    count = f": {report['count']}" if report["count"] else ""
    print(f"{report['verdict']}{count}")
    if report["alpha"] is not None:
        print(f"share removed: about {report['alpha']:.2f}")
    if report["shares"]:
        shares = ", ".join(f"{layer}: {share:.1e}" for layer, share in report["shares"].items())
        print(f"energy left along them by block (1 = an average direction; with a base, of the base's): {shares}")
    print("\n".join(report["evidence"]))


if __name__ == "__main__":
    app(prog_name="bin/audit")
