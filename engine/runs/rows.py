"""Rows as they cross from room to room: of rollouts.parquet and scores.parquet; and the tables of JSON files.

The schemas stand in engine.runs.parquet; a test holds the two together.
"""

from typing import Any, TypedDict

Row = dict[str, Any]
"""A table of a JSON file, or a row whose columns its schema names."""


class RolloutRow(TypedDict):
    """A response, with what made it."""

    variant: str
    variant_hash: str
    prompt_id: str
    split: str
    kind: str
    category: str
    prompt: str
    response: str
    response_token_ids: list[int]
    num_prompt_tokens: int
    num_output_tokens: int
    finish_reason: str
    mean_logprob: float | None
    sampling: str
    seed: int
    engine: str
    dtype: str
    model: str
    form: str


class ScoreRow(TypedDict):
    """A judge's grades of a response; None where it gave none, with the error."""

    variant_hash: str
    prompt_id: str
    judge: str
    judge_model: str
    rubric_hash: str
    repeat: int
    compliance: float | None
    coherence: float | None
    declined: bool | None
    reason: str
    raw_reply: str | None
    error: str | None
    attempts: int
    latency_ms: float | None
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
