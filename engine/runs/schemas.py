"""The columns of rollouts.parquet, likelihoods.parquet, views.parquet and scores.parquet: as schemas, and as typed rows.

A test holds the two together.
"""

from typing import Any, TypedDict

import pyarrow as pa

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
    language: str | None
    prompt: str
    messages: str | None
    condition: str | None
    response: str
    response_token_ids: list[int]
    num_prompt_tokens: int
    num_output_tokens: int
    finish_reason: str
    trace: str | None
    num_trace_tokens: int | None
    unfinished: bool | None
    mean_logprob: float | None
    sampling: str
    seed: int
    engine: str
    dtype: str
    model: str
    template: str
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
    outcome: str | None
    reason: str
    raw_reply: str | None
    error: str | None
    attempts: int
    latency_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None
    reply_model: str | None
    harm: float | None


ROLLOUT_SCHEMA = pa.schema(
    [
        ("variant", pa.string()),
        ("variant_hash", pa.string()),
        ("prompt_id", pa.string()),
        ("split", pa.string()),
        ("kind", pa.string()),
        ("category", pa.string()),
        ("language", pa.string()),
        ("prompt", pa.string()),
        ("messages", pa.string()),
        ("condition", pa.string()),
        ("response", pa.string()),
        ("response_token_ids", pa.list_(pa.int32())),
        ("num_prompt_tokens", pa.int32()),
        ("num_output_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("trace", pa.string()),
        ("num_trace_tokens", pa.int32()),
        ("unfinished", pa.bool_()),
        ("mean_logprob", pa.float64()),
        ("sampling", pa.string()),
        ("seed", pa.int64()),
        ("engine", pa.string()),
        ("dtype", pa.string()),
        ("model", pa.string()),
        ("template", pa.string()),
        ("form", pa.string()),
    ]
)


VIEW_NUMBERS = ("given", "otherwise", "refusing")  # of a judging.view.BaseView; null for an empty response
VIEW_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("variant_hash", "prompt_id")] + [(n, pa.float64()) for n in VIEW_NUMBERS]
)
LIKELIHOOD_SCHEMA = pa.schema([("variant_hash", pa.string()), ("prompt_id", pa.string()), ("mean_logprob", pa.float64())])


SCORE_SCHEMA = pa.schema(
    [
        ("variant_hash", pa.string()),
        ("prompt_id", pa.string()),
        ("judge", pa.string()),
        ("judge_model", pa.string()),
        ("rubric_hash", pa.string()),
        ("repeat", pa.int32()),
        ("compliance", pa.float64()),
        ("coherence", pa.float64()),
        ("declined", pa.bool_()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("raw_reply", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int32()),
        ("latency_ms", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost", pa.float64()),
        ("reply_model", pa.string()),
        ("harm", pa.float64()),
    ]
)


ROLLOUT_KEY = ("variant_hash", "prompt_id")
