"""Responses as columns: what an engine sends back and what is stored, with no Python object for a token or a row.

As rows, a driver stores some 4,000 responses of 200 tokens a second; as columns, more than 20,000.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from engine.inference.replica import Generation
from engine.models.thinking import Thinking
from engine.runs.requests import Request
from engine.runs.schemas import ROLLOUT_KEY, ROLLOUT_SCHEMA, VIEW_NUMBERS, VIEW_SCHEMA
from extraction.conversations import to_json
from judging.view import BaseView

RESPONSE_COLUMNS = ("response", "response_token_ids", "num_output_tokens", "finish_reason", "mean_logprob")
THOUGHT_SCHEMA = pa.schema([ROLLOUT_SCHEMA.field(name) for name in ("response", "trace", "num_trace_tokens", "unfinished")])
RESPONSE_SCHEMA = pa.schema([ROLLOUT_SCHEMA.field(name) for name in RESPONSE_COLUMNS])


def response_batch(generations: Sequence[Generation]) -> pa.RecordBatch:
    """Generations as RESPONSE_SCHEMA's columns, in the prompts' order."""
    ordered = sorted(generations, key=lambda generation: generation.index)
    columns = [
        [one.text for one in ordered],
        [one.token_ids for one in ordered],
        [len(one.token_ids) for one in ordered],
        [one.finish_reason for one in ordered],
        [one.mean_logprob for one in ordered],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, RESPONSE_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=RESPONSE_SCHEMA)


def generations_of(batch: pa.RecordBatch) -> list[Generation]:
    """The way back."""
    columns = (batch[name].to_pylist() for name in RESPONSE_COLUMNS if name != "num_output_tokens")
    return [Generation(place, *found) for place, found in enumerate(zip(*columns, strict=True))]


def request_batch(requests: Sequence[Request], prompts: Sequence[Sequence[int]]) -> pa.RecordBatch:
    """The columns of rollouts that the requests give, and their rendered prompts' lengths: every variant's alike."""
    named: dict[str, list[Any]] = {
        "prompt_id": [request.prompt_id for request in requests],
        "split": [request.split for request in requests],
        "kind": [request.kind for request in requests],
        "category": [request.category for request in requests],
        "language": [request.language for request in requests],
        "prompt": [str(request.text) for request in requests],
        "messages": [to_json(request.text) for request in requests],
        "condition": [request.condition for request in requests],
        "num_prompt_tokens": [len(prompt) for prompt in prompts],
    }
    return pa.RecordBatch.from_pydict(named, schema=pa.schema([ROLLOUT_SCHEMA.field(name) for name in named]))


def thought_batch(thinking: Thinking | None, prompts: Sequence[Sequence[int]], answered: pa.RecordBatch) -> pa.RecordBatch:
    """The columns that tell a response's trace from its answer; nulls beside the response where a model does not think first."""
    if thinking is None:
        columns = [answered["response"], *(pa.nulls(len(answered), field.type) for field in list(THOUGHT_SCHEMA)[1:])]
        return pa.RecordBatch.from_arrays(columns, schema=THOUGHT_SCHEMA)
    ids = answered["response_token_ids"].to_pylist()
    rows = [thinking.columns(list(prompt), response) for prompt, response in zip(prompts, ids, strict=True)]
    return pa.RecordBatch.from_pylist(rows, schema=THOUGHT_SCHEMA)


def rollout_table(constant: Mapping[str, Any], *batches: pa.RecordBatch) -> pa.Table:
    """Rows of rollouts.parquet: what they share, and the columns of their requests, responses and traces; the last one counts."""
    columns = {field.name: column for batch in batches for field, column in zip(batch.schema, batch.columns, strict=True)}
    asked = batches[0]
    for name, value in constant.items():
        columns[name] = pa.repeat(pa.scalar(value, ROLLOUT_SCHEMA.field(name).type), len(asked))
    return pa.Table.from_arrays([columns[name] for name in ROLLOUT_SCHEMA.names], schema=ROLLOUT_SCHEMA)


def view_table(keys: Sequence[tuple[str, str]], views: Sequence[BaseView | None]) -> pa.Table:
    """Rows of views.parquet, by (variant_hash, prompt_id); nulls of an empty response."""
    rows = [
        dict(zip(ROLLOUT_KEY, key, strict=True)) | {name: None if view is None else getattr(view, name) for name in VIEW_NUMBERS}
        for key, view in zip(keys, views, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=VIEW_SCHEMA)
