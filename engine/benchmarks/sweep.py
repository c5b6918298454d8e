"""The cost of a sweep: exhaustive and screened, against plain `LLM.generate`, hooks in transformers, and an engine a variant."""

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.checkpoints.export import export
from engine.configs.schema import RunConfig
from engine.display.progress import say
from engine.environment import describe
from engine.evaluate.candidates import Candidate
from engine.evaluate.rollouts import Rollouts
from engine.evaluate.tasks import LocalEngine, Result, Task
from engine.rollout.directions import transformers_model
from engine.runs.files import SCREENED
from engine.runs.parquet import ShardedTable
from engine.runs.requests import DECLINED
from engine.runs.run_dir import RunDir, open_run_dir
from engine.runs.selection import with_selection
from engine.runs.session import Session
from engine.scoring.grader import OfflineGrader
from engine.scoring.run_judge import RunJudge
from engine.sweep.faithful import elsewhere
from engine.sweep.grid import Grid
from engine.sweep.inputs import SweepInputs, check_inputs
from engine.sweep.screen import SCREEN_SCHEMA, run_screen
from engine.sweep.search import Search, grids_of_sweep
from engine.sweep.settings import sweep_identity
from extraction.prompts import take

PLAIN_EVERY = 3  # variants between two that plain LLM.generate does too
SLOW_LAYERS = 2  # for hooks and restarts, scaled to all


class WatchedEngine(LocalEngine):
    """Notes some generations' wall, swap and storing included, each beside plain `LLM.generate` on the same weights and prompts.

    The two take turns in going first.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.ours: list[float] = []
        self.plain: list[float] = []
        self.swaps: list[float] = []
        self.compared_prompts = 0
        self.extra_seconds = 0.0  # what only the comparison cost
        self._count = 0

    def run(self, tasks: Iterable[Task]) -> Iterator[Result]:
        for task in tasks:
            compared = task.responses is None and self._count % PLAIN_EVERY == 1
            self._count += task.responses is None
            plain_first = len(self.plain) % 2 == 1
            if compared and plain_first:
                self._time_plain(task)
            started = time.monotonic()
            result = self._do(task)
            worked = time.monotonic() - started
            if compared and not plain_first:
                self._time_plain(task)
            resumed = time.monotonic()
            yield result
            if compared:
                self.ours.append(worked + time.monotonic() - resumed)
                self.swaps.append(result.swap_seconds)
                self.compared_prompts += len(task.prompts)

    def _time_plain(self, task: Task) -> None:
        started = time.monotonic()
        self.session.replica().swap(task.variant)
        self.plain.append(plain_seconds(self.session, task))
        if len(self.plain) % 2 == 0:  # plain went first: the sweep has its swap still to do
            self.session.replica().swap(self.session.base)
        self.extra_seconds += time.monotonic() - started


def plain_seconds(session: Session, task: Task) -> float:
    """Wall of `LLM.generate` on a task's prompts, with the weights that are there."""
    from vllm import SamplingParams

    llm = session.replica().llm
    llm.reset_prefix_cache()
    sampling = SamplingParams(temperature=0, max_tokens=task.sampling.max_tokens)
    started = time.monotonic()
    llm.generate([{"prompt_token_ids": list(ids)} for ids in task.prompts], sampling, use_tqdm=False)
    return time.monotonic() - started


def bench_sweep(config: RunConfig, num_prompts: int) -> dict[str, Any]:
    """Every figure of the comparison, each scaled to all layers, in one run on this machine.

    Both searches are for the best single direction alone (no subspaces, one finalist) and end with its full-length run.
    """
    session, inputs = _prepare(config, num_prompts)
    with tempfile.TemporaryDirectory(prefix="refusal-bench-") as name:
        folder = Path(name)
        identity = sweep_identity(session, RunJudge(session.config.judge, 1))
        grid = grids_of_sweep(session, open_run_dir(folder / "directions", identity))[0]
        layers = grid.singles()
        engine = WatchedEngine(session)
        session.replica().swap(session.base)
        say(f"exhaustive: {len(layers)} layers x {len(inputs.pairs)} prompts x {config.sampling.max_tokens} tokens")
        exhaustive = _search(session, inputs, grid, engine, folder / "exhaustive", exhaustive=True)
        session.close()  # the screen's model and an engine do not fit on one card together
        screened = _search(session, inputs, grid, LocalEngine(session), folder / "screened", exhaustive=False)
        session.close()
        slow = layers[:: max(len(layers) // SLOW_LAYERS, 1)][:SLOW_LAYERS]
        hooked = _hooked_seconds(session, inputs, slow) / len(slow) * len(layers)
        restarted = sum(_restarted_seconds(session, inputs, one, folder) for one in slow) / len(slow) * len(layers)
    ours, plain = (
        sum(seconds) / engine.compared_prompts * len(inputs.pairs) * len(layers) for seconds in (engine.ours, engine.plain)
    )
    return {
        "speedup_over_hooks": round(hooked / ours, 2),
        "speedup_over_restarts": round(restarted / ours, 2),
        "speedup_screened": round(exhaustive["seconds"] / screened["seconds"], 2),
        "ratio_to_plain": round(ours / plain, 4),
        "ratio_to_plain_with_judging": round(exhaustive["seconds"] / plain, 4),
        "switch_seconds": round(sum(engine.swaps) / len(engine.swaps), 4),
        "same_winner": exhaustive["winner"] == screened["winner"],
        "within_interval": exhaustive["product_low"] <= screened["product"] <= exhaustive["product_high"],
        "exhaustive": exhaustive,
        "screened": screened,
        "seconds_all_layers": {"ours": ours, "plain": plain, "hooks": hooked, "restarts": restarted},
        "layers": len(layers),
        "prompts": len(inputs.pairs),
        "max_tokens": config.sampling.max_tokens,
        "model": config.model.path,
        **describe(),
    }


def _prepare(config: RunConfig, num_prompts: int) -> tuple[Session, SweepInputs]:
    sweep = config.sweep.model_copy(update={"subspaces": [], "finalists": 1, "controls": 0})
    config, pairs = with_selection(config.model_copy(update={"sweep": sweep}))
    session = Session(config)
    inputs = SweepInputs(take(pairs, num_prompts, "the selection"), [r for r in session.requests if r.kind == DECLINED])
    check_inputs(config, session.pairs, inputs)
    return session, inputs


def _search(
    session: Session, inputs: SweepInputs, grid: Grid, engine: LocalEngine, folder: Path, *, exhaustive: bool
) -> dict[str, Any]:
    """The search for a winner, up to its full-length run on the selection prompts."""
    folder.mkdir()
    run_dir = RunDir(folder, {"stages": {}})
    rollouts = Rollouts(session, run_dir, engine, OfflineGrader())
    search = Search(session, inputs, grid, rollouts)
    started = time.monotonic()
    if exhaustive:
        winner = search.selected(grid.singles())[0]
        screened = started
    else:
        table = ShardedTable(run_dir.file(SCREENED), SCREEN_SCHEMA, key=["variant_hash"])
        candidates = search.screened(run_screen(session, [grid], inputs, table, rollouts))
        screened = time.monotonic()
        winner = search.selected(search.raced(candidates)[:1])[0]
    seconds = time.monotonic() - started - (engine.extra_seconds if isinstance(engine, WatchedEngine) else 0)
    rollouts.scoring.close()
    row = next(row for row in search.stages if row["stage"] == "selection" and row["variant"] == winner.name)
    totals = rollouts.times.totals
    return {
        "seconds": round(seconds, 1),
        "screen_seconds": round(screened - started, 1),
        "likelihood_seconds": totals["likelihood_seconds"],
        "generated_tokens": sum(rollouts.lengths.values()),
        "winner": winner.name,
        **{name: round(row[name], 4) for name in ("product", "product_low", "product_high")},
    }


def _hooked_seconds(session: Session, inputs: SweepInputs, candidates: Sequence[Candidate]) -> float:
    """transformers `generate`, batch 32, with the same projections ablated by hooks."""
    from extraction.generate import greedy
    from extraction.intervention import ablation

    prompts = session.render(inputs.selection, "selection prompts")
    writers = [tensor.name.removesuffix(".weight") for tensor in session.plan.edited]
    model = transformers_model(session)
    greedy(model, prompts[:32], 4)  # warm-up
    started = time.monotonic()
    for candidate in candidates:
        assert candidate.variant.edit is not None
        say(f"hooks: {candidate.name}")
        with ablation(model, writers, candidate.variant.edit.basis_HK):
            greedy(model, prompts, session.config.sampling.max_tokens)
    return time.monotonic() - started


def _restarted_seconds(session: Session, inputs: SweepInputs, candidate: Candidate, folder: Path) -> float:
    """Write the variant's checkpoint, start an engine on it, generate, stop."""
    prompts = session.render(inputs.selection, "selection prompts")
    out = folder / f"model-{candidate.name}"
    started = time.monotonic()
    export(session, candidate.variant, out, layers=candidate.layers)
    say(f"restart: {candidate.name}")
    elsewhere(session, out, prompts)
    return time.monotonic() - started
