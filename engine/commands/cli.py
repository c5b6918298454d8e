"""Shared by the commands: options that several have, and errors that exit with 2 and no traceback."""

import contextlib
import errno
import json
import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from editing.errors import EditError
from engine.commands.application import Application as Application
from engine.commands.options import AlphaOption as AlphaOption
from engine.commands.options import AnswerableOption as AnswerableOption
from engine.commands.options import ColumnsOption as ColumnsOption
from engine.commands.options import DirectionsOption as DirectionsOption
from engine.commands.options import DryRunOption as DryRunOption
from engine.commands.options import EditFormOption as EditFormOption
from engine.commands.options import FormatOption as FormatOption
from engine.commands.options import JsonOption as JsonOption
from engine.commands.options import JudgeOption as JudgeOption
from engine.commands.options import KindsOption as KindsOption
from engine.commands.options import LayersOption as LayersOption
from engine.commands.options import ModelOption as ModelOption
from engine.commands.options import NameOption as NameOption
from engine.commands.options import PairsOption as PairsOption
from engine.commands.options import RequestsOption as RequestsOption
from engine.commands.options import SetOption as SetOption
from engine.commands.options import SplitOption as SplitOption
from engine.commands.options import SystemOption as SystemOption
from engine.commands.options import TemplateOption as TemplateOption
from engine.commands.options import TrustOption as TrustOption
from engine.commands.options import VariantOption as VariantOption
from engine.display.console import FORMS
from engine.display.escape import for_terminal
from engine.environment import set_environment
from engine.errors import EngineError
from engine.paths import user_path
from extraction.errors import ExtractionError
from judging.errors import JudgeError

USER_ERRORS = (EngineError, ExtractionError, EditError, JudgeError)
AGAIN = "finished rows are kept; run the same command again to continue"
LONGEST_NAME = 255  # of a file
FULL = {errno.ENOSPC: "Free some space", errno.EDQUOT: "Free some of your quota", errno.EIO: "Check the disk"}


class Terminated(BaseException):
    """The process was asked to end (SIGTERM): what is finished is written on the way out, as for Ctrl-C."""


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Print an error that the user can act on, without a traceback, and exit with 2; with 130 or 143 after a signal."""
    try:
        with _terminable():
            yield
    except USER_ERRORS as error:
        _say_error(str(error))
        raise typer.Exit(2) from error
    except OSError as error:
        advice = f"{FULL[error.errno]}; {AGAIN}." if error.errno in FULL else "Check the path."
        where = f": {error.filename}" if error.filename else ""
        said = "Not a directory" if isinstance(error, FileExistsError) else error.strerror or error
        _say_error(f"{said}{where}. {advice}")
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        print(f"interrupted; {AGAIN}", file=sys.stderr)
        raise typer.Exit(130) from None
    except Terminated:
        print(f"terminated; {AGAIN}", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGTERM) from None


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """While it is entered, SIGTERM raises Terminated, once: `timeout` and Slurm send it twice."""

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread, where nobody takes signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_error(text: str) -> None:
    print(f"error: {for_terminal(text)}", file=sys.stderr)


def keep_stdout_clean() -> None:
    """Send what libraries print to stderr: stdout is for data; and set what they read. Call before any of them is imported."""
    set_environment()
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def named(variants: list[str] | None) -> Sequence[str | None]:
    """The variants of a command that takes several; one without a name where the flags alone say what it is."""
    return variants or [None]


def variant_overrides(
    settings: list[str] | None,
    layers: str | None,
    alpha: str | None,
    model: str | None,
    pairs: str | None,
    *,
    columns: list[str] | None = None,
    template: str | None = None,
    system: str | None = None,
    judge: str | None = None,
    name: str | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Dotted keys and values from the flags that say what a variant is, from `others` (section__key) and from --set."""
    flags = {
        "variant": name,
        **parse_columns(columns),
        "directions.layers": parse_layers(layers),
        **_alphas(alpha),
        "model.path": existing_or_embedded(model),
        "model.chat_template": existing_or_embedded(template),
        "judge.name": existing_or_embedded(judge),
        "data.system": text_or_file(system, "--system"),
        "data.train_pairs": existing_or_embedded(pairs),
        **{name.replace("__", "."): value for name, value in others.items()},
    }
    chosen = {key: value for key, value in flags.items() if value is not None}
    return chosen | parse_settings(settings)


def parse_settings(settings: list[str] | None, flag: str = "--set") -> dict[str, Any]:
    """Dotted keys and values of --set, or of another option of its form."""
    chosen: dict[str, Any] = {}
    for setting in settings or []:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise EngineError(f"{flag} takes KEY=VALUE, such as sampling.max_tokens=128; found '{setting}'.")
        chosen[key] = toml_value(text)
    return chosen


def parse_columns(columns: list[str] | None) -> dict[str, Any]:
    """Dotted keys and values of --columns: two names are those of pair files, one is that of request files."""
    chosen: dict[str, Any] = {}
    for text in columns or []:
        names = items(text)
        key = {1: "data.request_column", 2: "data.pair_columns"}.get(len(names))
        if key is None or key in chosen:
            raise EngineError(
                f"--columns takes harmful,safe of pair files, or one name of request files, once each; found '{text}'."
            )
        chosen[key] = names[0] if len(names) == 1 else names
    return chosen


def _alphas(text: str | None) -> dict[str, Any]:
    """Keys and values of --alpha: one number for all blocks, or BLOCKS:NUMBER pairs such as 3-10:0.5,12:1."""
    if text is None or ":" not in text:
        return {"edit.alpha": text}
    by_layer: dict[str, str] = {}
    for part in text.split(","):
        blocks, _, number = part.partition(":")
        found = _numbers(blocks, "--alpha takes a number, or pairs such as 3-10:0.5,12:1")
        by_layer |= {str(block): number for block in found}
    return {"edit.alpha_by_layer": by_layer}


def _numbers(text: str, expected: str) -> list[int]:
    from engine.configs.schema import parse_numbers

    try:
        return parse_numbers(text)
    except ValueError:
        raise EngineError(f"{expected}; found '{text}'.") from None


def parse_layers(text: str | None) -> list[int] | None:
    """Layers from `16,15,17` or `4-20`, in the order given."""
    return None if text is None else _numbers(text, "--layers takes layers such as 16,15,17 or 4-20")


def items(text: str | None) -> list[str]:
    """The parts of a list with commas, without spaces and empty parts."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def numbers(text: str, flag: str) -> tuple[float, ...]:
    """Numbers from `0.5,1,2`. Raises EngineError, naming the flag, for none or for what is no finite number."""
    try:
        found = tuple(float(part) for part in items(text))
    except ValueError:
        found = ()
    if not found or not all(math.isfinite(number) for number in found):
        raise EngineError(f"{flag} takes numbers with commas, such as 0.5,1,2; found '{text}'.")
    return found


def check_checkpoints(*folders: Path | None) -> None:
    """Raise what stands against opening the checkpoints that are named, in the time before torch would be imported."""
    from editing.checkpoint import open_checkpoint

    for folder in folders:
        if folder is not None:
            open_checkpoint(folder)


def existing_or_embedded(path: str | None) -> str | None:
    """A path made absolute, so that a manifest means the same from every folder; embedded names and repositories as they are."""
    if path is None or path.startswith("embedded:") or "{" in path or not user_path(path).exists():
        return path
    return str(user_path(path).resolve())


def text_or_file(given: str | None, flag: str) -> str | None:
    """A text as it is, or the text of a file, without the line's end behind it. Raises EngineError for what is not UTF-8."""
    if given is None or "\n" in given or len(given) > LONGEST_NAME or not user_path(given).is_file():
        return given
    try:
        return user_path(given).read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise EngineError(f"{flag} {given} is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from error


def refuse_unread(context: typer.Context, mode: str, unread: Iterable[str]) -> None:
    """Raise EngineError for an option that was given and that this mode of the command does not read."""
    for name in unread:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = next(part.opts[0] for part in context.command.params if part.name == name)
            raise EngineError(f"{mode} does not read {flag}. Leave it out.")


def check_form(form: str, as_json: bool = False) -> str:
    """The form to print in. Raises EngineError for one that is not known, before any work."""
    if form not in FORMS:
        raise EngineError(f"--format takes one of {', '.join(FORMS)}; found '{form}'.")
    return "json" if as_json else form


def stdout_for_data() -> contextlib.redirect_stdout[Any]:
    """While it is entered, what is printed goes to stderr: Ray tells of a lost worker on stdout, from a thread of its own."""
    return contextlib.redirect_stdout(sys.stderr)


def show_dry_run(
    config: Any, more: Mapping[str, Any] | None = None, *, layers: bool = True, others: Sequence[Any] | None = None
) -> None:
    """Look at files, model, template and prompts, then print the configuration as JSON. Raises for what cannot run.

    `layers`: whether the command needs to know a layer. `others`: of a command that takes several variants, all of them.
    """
    from engine.rollout.plan import check_only

    for one in [config] if others is None else others:
        check_only(one, layers=layers)
    shown = config.model_dump(mode="json") if others is None else {"variants": [one.model_dump(mode="json") for one in others]}
    print_json(shown | dict(more or {}))


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, indent=2))


def toml_value(text: str) -> Any:
    """A text as a value of TOML: a number, a list, a truth value; the text itself where it is none."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
