"""Chat templates as models have them: which text is used, which keys it reads, and whether it prints the clock."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from extraction.errors import ExtractionError

PLAIN = "plain"
PLAIN_TEMPLATE = "{{ bos_token }}Question: {{ messages[-1]['content'] }}\nAnswer:"
"""The completion form for a base model: the question on a line of its own, and the answer after a label."""
DEFAULT = "default"
MERGED = ", system text merged"
"""Behind a template's label where a system text stands in the user's first turn."""
SPOKEN_OF_TIME = ("date", "time", "today")


def chosen_template(tokenizer: Any, given: str | None = None) -> str:
    """The text of the template that prompts are rendered through.

    given: `plain`, the name of one of the tokenizer's templates, a file, or the template's own text; None takes the tokenizer's.
    Raises ExtractionError where there is none, or a set of which none is the default.
    """
    own = getattr(tokenizer, "chat_template", None)
    named = own if isinstance(own, dict) else {DEFAULT: own} if own else {}
    if given is None:
        if DEFAULT not in named:
            raise ExtractionError(_missing(named))
        return str(named[DEFAULT])
    if given == PLAIN:
        return PLAIN_TEMPLATE
    if given in named:
        return str(named[given])
    return given if "{" in given else _read(given, named)


def template_label(given: str | None) -> str:
    """A word for the template of a row: the model's own, the plain completion form, or another that was given."""
    return "own" if given is None else PLAIN if given == PLAIN else "given"


def keys_read(template: str) -> set[str]:
    """The names that a template takes from outside. Raises ExtractionError for one with an error in its syntax."""
    import jinja2
    from jinja2 import meta
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block that transformers adds to mark what an assistant wrote."""

        tags = {"generation"}  # noqa: RUF012 (jinja2's own way)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(extensions=[Generation, loopcontrols])
    environment.globals |= dict.fromkeys(("raise_exception", "strftime_now"), None)
    try:
        return set(meta.find_undeclared_variables(environment.parse(template)))
    except (jinja2.TemplateError, RecursionError) as error:
        raise ExtractionError(f"The chat template cannot be read: {error}. Mend it, or give one: model.chat_template.") from error


def check_keys(given: Iterable[str], read: set[str]) -> None:
    """Raise ExtractionError for a key that the template does not read, naming the nearest that it does."""
    usual = {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token"}
    for key in given:
        if key not in read:
            own = sorted(read - usual)
            near = difflib.get_close_matches(key, own, 1)
            hint = f"Did you mean {near[0]}?" if near else f"It reads {', '.join(own) or 'no key of its own'}."
            raise ExtractionError(f"The chat template does not read chat_template_kwargs.{key}, so it would do nothing. {hint}")


def fixed_clock(day: date) -> Callable[[str], str]:
    """`strftime_now` of templates, at noon of one day."""
    return datetime.combine(day, time(12)).strftime


def clock_error(read: set[str], kwargs: Mapping[str, Any]) -> ExtractionError:
    """The refusal of a template that prints the clock: tomorrow its token ids would be others."""
    keys = sorted(key for key in read - kwargs.keys() if any(word in key for word in SPOKEN_OF_TIME))
    other = "".join(f", or model.chat_template_kwargs.{key}" for key in keys)
    return ExtractionError(
        "The chat template prints today's date, so the same prompt has other tokens tomorrow. Fix it: "
        f"--set model.clock=2026-01-31{other}."
    )


def _missing(named: Mapping[str, str]) -> str:
    if named:
        return f"The tokenizer has chat templates {', '.join(sorted(named))} and no default. Choose one: model.chat_template."
    return (
        "The tokenizer has no chat template. Use an instruction-tuned model, give a template (--template FILE), or ask as a "
        f"completion: --template {PLAIN}."
    )


def _read(given: str, named: Mapping[str, str]) -> str:
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        names = f", one of {', '.join(sorted(named))}" if named else ""
        raise ExtractionError(
            f"model.chat_template is '{given}'; expected {PLAIN}{names}, a file, or a template's text ({type(error).__name__})."
        ) from error
