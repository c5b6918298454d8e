"""From paired prompts to rates with their uncertainty: what a notebook calls, step by step.

    from engine import config_for, edit, extract, generate, make_variant, open_session, score, summarise

    config = config_for("model", "pairs.jsonl", layers=[12], requests="requests.jsonl", answerable="answerable.jsonl")
    with open_session(config) as session:
        directions = extract(session)  # one a layer, (L+1, H)
        variant = make_variant(session, directions, name="layer12", alpha=1.0)  # W - alpha Q (Q^T W)
        edit(session, variant, "edited")  # a checkpoint, with its card
        rows = [*generate(session, session.base), *generate(session, variant)]  # one engine, weights swapped
        scores = score(rows, judge="offline", session=session)
    for rates in summarise(rows, scores):
        print(rates.variant, rates.kind, rates.declined, rates.product)  # each with its 95 % interval

`load_config("smollm2_135m_k1")` reads a variant of configs/ instead. Where a name is first taken, `engine.commands.notebook`
is imported; nothing heavy is imported here.
"""

from typing import TYPE_CHECKING, Any

from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.commands.notebook import (
        Rates,
        config_for,
        edit,
        extract,
        generate,
        load_config,
        make_variant,
        open_session,
        score,
        summarise,
    )

__all__ = [
    "EngineError",
    "Rates",
    "config_for",
    "edit",
    "extract",
    "generate",
    "load_config",
    "make_variant",
    "open_session",
    "score",
    "summarise",
]

if not TYPE_CHECKING:  # a type checker sees the names above, and no others

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'engine' has no attribute '{name}'")
        from engine.commands import notebook

        return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
