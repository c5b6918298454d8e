"""bin/chat: base and variant side by side in the terminal."""

import shutil
import sys
from collections.abc import Iterator

from engine.commands import cli

app = cli.Application("bin/chat --variant smollm2_135m_k1", "bin/chat --variant smollm2_135m_k1 --alpha 0.5 --system 'Be brief.'")


@app.command()
def chat(
    variant: cli.VariantOption = None,
    name: cli.NameOption = None,
    layers: cli.LayersOption = None,
    directions: cli.DirectionsOption = None,
    alpha: cli.AlphaOption = None,
    model: cli.ModelOption = None,
    template: cli.TemplateOption = None,
    system: cli.SystemOption = None,
    pairs: cli.PairsOption = None,
    columns: cli.ColumnsOption = None,
    settings: cli.SetOption = None,
    trust_config: cli.TrustOption = False,
    dry_run: cli.DryRunOption = False,
) -> None:
    """Talk with base and variant side by side; each goes on with its own answers. No weights change.

    A line is a question to both. /alpha 0.5 changes how much is taken out between turns, /system TEXT begins anew under a
    system prompt, /new begins anew, /quit ends. Lines may also come from a pipe.
    """
    cli.keep_stdout_clean()
    with cli.user_errors():
        from engine.configs.load import load_config

        overrides = cli.variant_overrides(
            settings,
            layers,
            alpha,
            model,
            pairs,
            columns=columns,
            directions__file=cli.existing_or_embedded(directions),
            edit__form="runtime",
            template=template,
            system=system,
            name=name,
        )
        config = load_config(variant, overrides)
        if dry_run:
            cli.show_dry_run(config)
            return
        from engine.display.chat_words import HELP
        from engine.display.progress import say
        from engine.runs.session import Session
        from engine.serving.chat import open_chat, talk

        say(f"{config.variant}: looking at {config.model.path} and the prompts")
        with Session(config) as session:
            opened = open_chat(session)
            say(HELP)
            for answer in talk(opened, _lines(), shutil.get_terminal_size((80, 24)).columns):
                if answer:
                    print(answer, end="\n\n", flush=True)


def _lines() -> Iterator[str]:
    """What is typed, with a prompt on a terminal; what is piped in is shown."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not sys.stdin.isatty():
            print(f"> {line}")
        yield line


if __name__ == "__main__":
    app(prog_name="bin/chat")
