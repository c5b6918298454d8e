"""bin/convert-qwen1: a Qwen-1 checkpoint in the Qwen2 layout."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands import cli

app = cli.Application(
    "bin/convert-qwen1 Qwen-1_8B-Chat converted",
)


@app.command()
def convert_qwen1(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of the Qwen-1 checkpoint (safetensors, qwen.tiktoken).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; it must not exist yet.")],
) -> None:
    """Turn a Qwen-1 checkpoint, such as Qwen-1.8B-Chat, into the Qwen2 layout that vLLM runs. No remote code runs."""
    cli.keep_stdout_clean()
    with cli.user_errors():
        cli.check_checkpoints(source)
        from editing.qwen1 import convert_qwen1 as convert

        convert(source, out)
        print(f"{out}: in the Qwen2 layout; use it with --model {out}")


if __name__ == "__main__":
    app(prog_name="bin/convert-qwen1")
