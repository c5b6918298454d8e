"""Stage 1: every candidate's bypass, induce and KL, from prefills alone; nothing is generated with a candidate.

transformers computes them (extraction.screening), in one process with the whole vocabulary; a GPU's memory is free again
before vLLM starts.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from engine.configs.schema import SweepConfig
from engine.display.progress import Progress, say
from engine.errors import EngineError
from engine.evaluate.candidates import Candidate
from engine.evaluate.times import Times
from engine.models.folded import FoldedModel
from engine.rollout.directions import transformers_model
from engine.runs import parquet
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.sweep.grid import Grid
from engine.sweep.inputs import top_sizes
from extraction.generate import greedy
from extraction.intervention import addition
from extraction.prefill import BATCH_TOKENS
from extraction.prompts import Pair
from extraction.screening import (
    Panel,
    RefusalTokens,
    Scores,
    ablation_scores,
    find_refusal_tokens,
    forced_prefix,
    induction_scores,
    make_panel,
)
from judging.offline import OfflineJudge

SCREEN_SCHEMA = pa.schema(
    [
        ("variant_hash", pa.string()),
        ("variant", pa.string()),
        ("position", pa.string()),
        ("layer", pa.int32()),
        ("alpha", pa.float64()),
        ("n", pa.int32()),
        ("bypass", pa.float64()),
        ("induce", pa.float64()),
        ("kl", pa.float64()),
    ]
)
FIGURES = ("n", "bypass", "induce", "kl")
FIRST_WORDS = 24  # tokens in which a refusal shows
GPU_BATCH_TOKENS = 32768
HOPELESS = 2.0  # standard errors beyond a limit, after half of the prompts


@dataclass(frozen=True)
class Probe:
    """The base, folded at will, and two halves of prompts; the second is read where the first does not settle the matter."""

    folded: FoldedModel
    halves: list[Panel]
    tokens: RefusalTokens

    def base_row(self, base: Candidate) -> Row:
        """The screen's row of the base itself, with nothing added or removed; it must be folded in."""
        scores = [ablation_scores(self.folded.model, panel, self.tokens.token_ids) for panel in self.halves]
        induce = [induction_scores(self.folded.model, panel, self.tokens.token_ids) for panel in self.halves]
        figures = {"bypass": torch.cat([part.bypass_N for part in scores]), "kl": torch.cat([part.kl_N for part in scores])}
        means = {name: float(values.mean()) for name, values in (figures | {"induce": torch.cat(induce)}).items()}
        return {"variant_hash": base.variant.hash, "variant": base.name, "alpha": 0.0, "n": len(figures["kl"]), **means}

    def induce(self, layer: int, difference_H: Tensor, config: SweepConfig) -> Tensor:
        """Refusal log-odds of answered prompts with the mean difference added at its layer; the base must be folded in."""
        read: list[Tensor] = []
        with addition(self.folded.model, layer, difference_H):
            for panel in self.halves:
                read.append(induction_scores(self.folded.model, panel, self.tokens.token_ids))
                induce_N = torch.cat(read)
                if too_low(induce_N, config.min_induce) or too_low(-induce_N, -config.min_induce):
                    break  # settled, one way or the other
        return torch.cat(read)

    def ablate(self, candidate: Candidate, induce_N: Tensor, config: SweepConfig) -> Row:
        """bypass and KL under the candidate's edit, with their number of prompts a side."""
        self.folded.fold(candidate.variant.edit)
        read: list[Scores] = []
        for panel in self.halves:
            read.append(ablation_scores(self.folded.model, panel, self.tokens.token_ids))
            kl_N = torch.cat([scores.kl_N for scores in read])
            if too_low(-kl_N, -config.max_kl) or too_low(induce_N, config.min_induce):
                break
        bypass_N = torch.cat([scores.bypass_N for scores in read])
        return {"n": len(kl_N), "bypass": float(bypass_N.mean()), "kl": float(kl_N.mean()), "induce": float(induce_N.mean())}


def run_screen(session: Session, grid: Grid, pairs: Sequence[Pair], table: parquet.ShardedTable, times: Times) -> None:
    """Fill `table` with a row per single-direction candidate; rows that are there already are not computed again.

    A layer beyond the depth limit gets a row without numbers: nothing could make it pass.
    """
    done, config = table.keys(), session.config.sweep
    todo = [candidate for candidate in grid.singles() if (candidate.variant.hash,) not in done]
    if not todo:
        return
    started = time.monotonic()
    limit = config.max_depth * session.checkpoint.num_layers
    sources = dict.fromkeys(candidate.sources[0] for candidate in todo if candidate.layers[0] < limit)
    with Progress("screen", len(todo) + len(sources), "steps") as progress:
        probe = make_probe(session, transformers_model(session), pairs)
        table.append(probe.base_row(grid.base()))
        induced = {}
        for position, layer in sources:
            difference_H = grid.directions[position].steering_LH[layer]
            induced[position, layer] = probe.induce(layer, difference_H, config)
            progress.advance()
        for candidate in todo:
            position, layer = candidate.sources[0]
            row = {"variant_hash": candidate.variant.hash, "variant": candidate.name, "position": position, "layer": layer}
            measured = probe.ablate(candidate, induced[position, layer], config) if layer < limit else {"n": 0}
            table.append(row | {"alpha": candidate.alpha} | measured)
            progress.advance()
    table.flush()
    times.add(screen_seconds=time.monotonic() - started)


def make_probe(session: Session, model: Any, pairs: Sequence[Pair]) -> Probe:
    """Lay out the prompts, find the refusal tokens, and remember the base's distributions."""
    declined = [session.renderer.render(pair.declined) for pair in pairs]
    answered = [session.renderer.render(pair.answered) for pair in pairs]
    forced = forced_prefix(model, [*declined[:8], *answered[:8]])
    responses = greedy(model, declined, len(forced) + FIRST_WORDS)
    declined, answered = ([[*prompt, *forced] for prompt in side] for side in (declined, answered))
    size = BATCH_TOKENS if next(model.parameters()).device.type == "cpu" else GPU_BATCH_TOKENS
    middle = len(pairs) // 2
    halves = [
        make_panel(model, declined[part], answered[part], batch_tokens=size) for part in (slice(middle), slice(middle, None))
    ]
    answers = [int(token) for panel in halves for token in panel.base_logprobs_NV.argmax(-1)]
    refusals = _first_tokens_of_refusals(session, pairs, responses, len(forced))
    tokens = find_refusal_tokens(refusals, answers)
    words = [session.renderer.tokenizer.decode([token]) for token in tokens.token_ids]
    after = f", read after {len(forced)} forced tokens" if forced else ""
    say(
        f"screen: refusals begin with {words} ({tokens.share_of_refusals:.0%} of {len(refusals)} refusals, "
        f"{tokens.share_of_answers:.0%} of {len(answers)} answers{after})"
    )
    return Probe(FoldedModel(model, session.checkpoint, session.plan), halves, tokens)


def too_low(values_N: Tensor, limit: float) -> bool:
    """Whether the mean is below the limit by more than HOPELESS standard errors, so that more prompts would not help."""
    if len(values_N) < 2:
        return False
    return float(values_N.mean() + HOPELESS * values_N.std() / len(values_N) ** 0.5) < limit


def _first_tokens_of_refusals(
    session: Session, pairs: Sequence[Pair], responses: Sequence[list[int]], num_forced: int
) -> list[int]:
    judge = OfflineJudge()
    texts = [session.renderer.tokenizer.decode(response, skip_special_tokens=True) for response in responses]
    judged = zip(pairs, texts, responses, strict=True)
    return [ids[num_forced] for pair, text, ids in judged if len(ids) > num_forced and judge.score(pair.declined, text).declined]


def verdicts(rows: Sequence[Row], config: SweepConfig, num_layers: int) -> list[Row]:
    """Each row with `kept` and `reason`: of those that pass the filters, all alphas of the strongest bypassing directions.

    As many directions go on as `keep` says, or as the largest topN needs.
    """
    ranked = sorted(rows, key=lambda row: (math.inf if row["bypass"] is None else row["bypass"], row["variant"]))
    passing = [row for row in ranked if filtered(row, config, num_layers) is None]
    directions = list(dict.fromkeys((row["position"], row["layer"]) for row in passing))
    most = max([config.keep, *top_sizes(config)])
    chosen = set(directions[:most])
    judged = []
    for row in ranked:
        reason = filtered(row, config, num_layers)
        kept = reason is None and (row["position"], row["layer"]) in chosen
        judged.append(
            {**row, "kept": kept, "reason": reason or ("passes the screen" if kept else f"{most} directions bypass more")}
        )
    return judged


def filtered(row: Row, config: SweepConfig, num_layers: int) -> str | None:
    """Why the screen leaves a candidate out; None where it passes."""
    if row["layer"] >= config.max_depth * num_layers:
        return f"depth {row['layer'] / num_layers:.2f} (limit {config.max_depth:g})"
    if not row["kl"] <= config.max_kl:
        return f"KL {row['kl']:.3f} (limit {config.max_kl:g})"
    if not row["induce"] > config.min_induce:
        return f"induces {row['induce']:.2f} (limit {config.min_induce:g})"
    return None if math.isfinite(row["bypass"]) else "bypass is not finite"


def check_survivors(rows: Sequence[Row], config: SweepConfig) -> None:
    """Raise EngineError where the screen left nothing, with what came nearest."""
    if any(row["kept"] for row in rows):
        return
    limits = f"KL <= {config.max_kl:g}, induce > {config.min_induce:g}, depth < {config.max_depth:g}"
    advice = (
        "screen.parquet has every candidate's. Set --max-kl, --min-induce or --max-depth to what this model allows, or search "
        "without the screen: --exhaustive."
    )
    measured = [row for row in rows if row["n"]]
    if not measured:
        raise EngineError(f"No candidate passes the screen ({limits}): every layer is too deep. {advice}")
    mildest, strongest = min(measured, key=lambda row: row["kl"]), max(measured, key=lambda row: row["induce"])
    raise EngineError(
        f"No candidate passes the screen ({limits}): the lowest KL is {mildest['kl']:.3f} ({mildest['variant']}), the highest "
        f"induce {strongest['induce']:.2f} ({strongest['variant']}). {advice}"
    )
