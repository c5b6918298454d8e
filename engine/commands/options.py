"""The options that several commands have, each with its help."""

from typing import Annotated

import typer

from engine.display.console import FORMS


def _trust(chosen: bool) -> bool:
    from engine.configs.vllm_keys import TRUSTING

    TRUSTING.set(chosen)
    return chosen


VariantOption = Annotated[
    str | None,
    typer.Option("--variant", metavar="NAME", help="A name in configs/, or a TOML file; else --model and --layers."),
]
NameOption = Annotated[str | None, typer.Option("--name", help="What to call it; with --model alone, the model's name.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Folder or hub repository, instead of the file's model.path.")]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        show_default="the folder's own",
        help="Chat template: a file, one of the tokenizer's by name, or plain (completion).",
    ),
]
PairsOption = Annotated[
    str | None,
    typer.Option(
        "--pairs", show_default="embedded:train_pairs", help="Training pairs: JSON, JSONL, CSV, TSV, Parquet or embedded:NAME."
    ),
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option("--columns", metavar="NAMES", help="Your columns: harmful,safe of pair files; one name, of request files."),
]
SystemOption = Annotated[
    str | None,
    typer.Option("--system", metavar="TEXT|FILE", help="A system prompt for every prompt that brings none of its own."),
]
RequestsOption = Annotated[
    str | None,
    typer.Option("--requests", show_default="embedded:test_requests", help="Test requests the base is expected to decline."),
]
AnswerableOption = Annotated[
    str | None,
    typer.Option("--answerable", show_default="embedded:test_answerable", help="Test requests that anyone would answer."),
]
LayersOption = Annotated[
    str | None, typer.Option("--layers", help="Layers whose directions are removed, such as 16,15,17 or 4-20.")
]
DirectionsOption = Annotated[
    str | None, typer.Option("--directions", metavar="FILE", help="A directions.safetensors to use instead of extracting.")
]
AlphaOption = Annotated[
    str | None, typer.Option("--alpha", show_default="1", help="Share removed; 1 is all of it. Also by block: 3-10:0.5,12:1.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any other key, such as sampling.max_tokens=128.", metavar="KEY=VALUE")
]
TrustOption = Annotated[
    bool,
    typer.Option("--trust-config", callback=_trust, help="Let the file set any vLLM argument, also those that run its code."),
]
JudgeOption = Annotated[
    str | None,
    typer.Option("--judge", metavar="NAME", show_default="offline", help="offline, a judge in configs/judges/, or a TOML file."),
]
KindsOption = Annotated[
    str | None,
    typer.Option(
        "--kinds", show_default="category", help="The unit of intervals: category (as files name it), auto (templates), prompt."
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split", show_default="prompts", help="kinds: half of the kinds make directions, rates on the others stand apart."
    ),
]
EditFormOption = Annotated[
    str | None,
    typer.Option(
        "--form",
        show_default="in_place",
        help="in_place: weights are exchanged. runtime: taken out while it runs.",
        metavar="FORM",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Look at everything, say what would be done and cost, and stop.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
FormatOption = Annotated[str, typer.Option("--format", help=f"How to print the tables: {', '.join(FORMS)}.", metavar="FORM")]
