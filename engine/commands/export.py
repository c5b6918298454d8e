"""bin/export: responses, scores and directions in the forms that other tools read."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/export runs/smollm2_135m_k1 --to inspect --out logs",
    "bin/export runs/smollm2_135m_k1 --to csv --out responses.csv",
    "bin/export runs/smollm2_135m_k1/directions.safetensors --to gguf --out control.gguf",
)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="A run directory, or a file of directions (ours, layer-keyed, or GGUF).")],
    to: Annotated[str, typer.Option("--to", help="Of a run: inspect, dataset, csv. Of directions: layers, gguf, directions.")],
    out: Annotated[Path, typer.Option(help="The file or folder to write; it must not exist.")],
    key: Annotated[str, typer.Option(help="A layer's key in a layer-keyed file.")] = "layer.{layer}",
    numbering: Annotated[
        str | None, typer.Option(help="How a layer-keyed file numbers layers: resid_pre (ours) or block_output.")
    ] = None,
    like: Annotated[str | None, typer.Option(help="The model that directions are of: a folder or a variant in configs/.")] = None,
) -> None:
    """Write a run as inspect logs, a Hugging Face dataset folder or CSV; or directions for steering tools, and back."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        from editing.folder import check_free
        from engine.errors import EngineError

        if not source.exists():
            raise EngineError(f"{source} does not exist. Give a run directory, or a file of directions.")
        check_free(out)
        from engine.exports.write import export as write

        print(write(source, to, out, key=key, numbering=numbering, like=like))


if __name__ == "__main__":
    app(prog_name="bin/export")
