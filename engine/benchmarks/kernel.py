"""The operator's kernel alone on a GPU: microseconds in a CUDA graph, beside the bytes it moves and a copy of the same size."""
# K = rows, H = hidden size, T = tokens

import itertools
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from engine.runtime.interventions import Intervention, Interventions

WIDTHS, LENGTHS, NUM_SLOTS, RANK = (2048, 4096, 8192), (64, 1024, 8192), 64, 1
IN_GRAPH, REPLAYS = 50, 20  # calls in a graph, so that no launch of Python's counts; and how often it is timed


def kernel_times() -> list[dict[str, Any]]:
    """A row for each width, number of tokens and mix of slots: bf16, one row a slot, the residual read too."""
    rows = []
    for width, length in itertools.product(WIDTHS, LENGTHS):
        tables = filled_tables(width, length)
        hidden_TH, residual_TH = (torch.randn(length, width, device="cuda").bfloat16() for _ in range(2))
        copied = microseconds(partial(residual_TH.copy_, hidden_TH))
        mixes = {"one variant": [1] * length, "64 mixed": [1 + place % NUM_SLOTS for place in range(length)], "slot zero": [0]}
        for mix, slots in mixes.items():
            tables.fill(slots, [length] if mix == "slot zero" else [1] * length)
            taken = microseconds(partial(tables.act, hidden_TH, 0, residual_TH))
            moved = 3 * hidden_TH.numel() * hidden_TH.element_size()  # both read, one written
            told = {"hidden_size": width, "tokens": length, "mix": mix, "microseconds": round(taken, 2)}
            rows.append(told | {"gigabytes_per_second": round(moved / taken / 1e3, 1), "copy_microseconds": round(copied, 2)})
    return rows


def filled_tables(width: int, length: int) -> Interventions:
    """Tables whose slots each hold a random unit row."""
    tables = Interventions(num_sites=1, hidden_size=width, num_slots=NUM_SLOTS, max_rank=RANK, max_tokens=length, device="cuda")
    for slot in range(1, NUM_SLOTS + 1):
        row_KH = torch.nn.functional.normalize(torch.randn(RANK, width, generator=torch.Generator().manual_seed(slot)))
        tables.put(slot, Intervention(row_KH, torch.ones(1, RANK), torch.zeros(1, RANK)))
    return tables


def microseconds(call: Callable[[], Any]) -> float:
    """The median device time of a call."""
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(IN_GRAPH):
            call()
    times = []
    for _ in range(REPLAYS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / IN_GRAPH)
    return statistics.median(times)
