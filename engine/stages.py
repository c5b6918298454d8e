"""The stages of a run, each reading files and writing files: directions, rollouts, likelihoods, scores, summary."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import store
from engine.config import SamplingConfig
from engine.environment import versions
from engine.errors import EngineError
from engine.progress import Progress, say
from engine.rundir import RunDir, file_hash, write_json
from engine.session import DECLINED, Request, Session, model_name
from engine.summary import summarise

if TYPE_CHECKING:
    from engine.replica import Generation
    from engine.variants import Variant
    from extraction.directions import Extraction

DIRECTIONS, ROLLOUTS, LIKELIHOODS = "directions.safetensors", "rollouts.parquet", "likelihoods.parquet"
SCORES, SUMMARY = "scores.parquet", "summary.json"


def run_all(session: Session, run_dir: RunDir) -> dict[str, Any]:
    """Every stage that is not done yet; returns the summary."""
    from judging.offline import rubric_hash

    config = run_dir.manifest["identity"]["config"]
    try:
        ensure_directions(session, run_dir)
        inputs = {
            "directions": file_hash(run_dir.file(DIRECTIONS)),
            **_without(config, "judge", "published", "description"),
        }
        run_dir.run_stage("rollouts", inputs, [ROLLOUTS], lambda: make_rollouts(session, run_dir))
        inputs = {"rollouts": file_hash(run_dir.file(ROLLOUTS))}
        run_dir.run_stage("likelihoods", inputs, [LIKELIHOODS], lambda: make_likelihoods(session, run_dir))
    finally:
        session.close()
    inputs |= {"likelihoods": file_hash(run_dir.file(LIKELIHOODS)), "judge": config["judge"], "rubric": rubric_hash()}
    run_dir.run_stage("scores", inputs, [SCORES], lambda: make_scores(run_dir))
    inputs = {"scores": file_hash(run_dir.file(SCORES)), "published": config["published"]}
    run_dir.run_stage("summary", inputs, [SUMMARY], lambda: write_json(run_dir.file(SUMMARY), make_summary(session, run_dir)))
    return read_summary(run_dir)


def read_summary(run_dir: RunDir) -> dict[str, Any]:
    """The summary of a finished run."""
    try:
        return dict(json.loads(run_dir.file(SUMMARY).read_text()))
    except (ValueError, TypeError) as error:
        raise EngineError(f"{run_dir.file(SUMMARY)} cannot be read. Remove it and run again: the rest is kept.") from error


def ensure_directions(session: Session, run_dir: RunDir) -> None:
    """directions.safetensors of the run directory."""
    inputs = session.directions_inputs()
    run_dir.run_stage("directions", inputs, [DIRECTIONS], lambda: make_directions(session, run_dir))


def make_directions(session: Session, run_dir: RunDir) -> None:
    """Extract every layer's direction from the training pairs."""
    from extraction.files import save_directions

    position = session.config.directions.position
    extraction = extract(session, session.offsets([position]))
    save_directions(run_dir.file(DIRECTIONS), extraction.directions[position], provenance(session))


def extract(session: Session, positions: Mapping[str, int]) -> "Extraction":
    """Directions of every layer at each position, and under shuffled labels, on the GPU where there is one."""
    from extraction.directions import extract_at

    pairs = session.rendered_pairs()
    model = transformers_model(session)
    with Progress("directions", 2 * len(pairs), "prompts") as progress:
        return extract_at(model, pairs, positions, seed=session.config.sweep.seed, on_prompt=lambda done: progress.advance())


def provenance(session: Session) -> dict[str, str]:
    """What a direction file says of its origin."""
    return {"model": model_name(session.config, session.base_hash), "base_hash": session.base_hash, **versions()}


def transformers_model(session: Session) -> Any:
    """The base as a transformers model, on the GPU where there is one."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    dtype = getattr(torch, session.config.model.dtype)
    model = AutoModelForCausalLM.from_pretrained(session.checkpoint.directory, dtype=dtype, trust_remote_code=False).eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def load_variant(session: Session, directions_file: Path) -> "Variant":
    """The configured variant, from a directions file."""
    from editing.projection import Edit, orthonormal_basis
    from engine.variants import Variant
    from extraction.directions import unit_directions
    from extraction.files import load_directions

    config = session.config
    units_KH = unit_directions(load_directions(directions_file), session.layers())
    names = [f"layer {layer}'s direction" for layer in session.layers()]
    basis_HK = orthonormal_basis(units_KH, k=config.directions.k, names=names)
    return Variant(config.variant, session.base_hash, session.plan, Edit(basis_HK, config.edit.alpha, config.edit.keep_norms))


def make_rollouts(session: Session, run_dir: RunDir) -> None:
    """Base and variant answer every request; rows that a shard holds already are not generated again."""
    table = store.ShardedTable(run_dir.file(ROLLOUTS), store.ROLLOUT_SCHEMA)
    variants = [session.base, load_variant(session, run_dir.file(DIRECTIONS))]
    done = table.keys()
    wanted = [(variant, [r for r in session.requests if (variant.hash, r.prompt_id) not in done]) for variant in variants]
    if done:
        say(f"rollouts: {len(done)} rows are there from an earlier run; {sum(len(rest) for _, rest in wanted)} to go")
    for variant, requests in wanted:
        if requests:
            generate_rows(session, variant, requests, table)
    order = {variant.hash: place for place, variant in enumerate(variants)}
    places = {request.prompt_id: place for place, request in enumerate(session.requests)}
    table.merge(
        lambda row: (order[row["variant_hash"]], places[row["prompt_id"]]),
        keep=lambda row: row["variant_hash"] in order and row["prompt_id"] in places,
    )


def generate_rows(session: Session, variant: "Variant", requests: list[Request], table: store.ShardedTable) -> None:
    """Generate one variant's rows, each into the table as it finishes."""
    prompts = session.render(requests, "test requests")
    replica = session.replica()
    replica.swap(variant)
    sampling = session.config.sampling
    constant = row_identity(session, variant, sampling)
    try:
        with Progress(f"rollouts {variant.name}", len(requests)) as progress:
            for generation in replica.generate(prompts, sampling):
                place = generation.index
                table.append(constant | response_columns(requests[place], prompts[place], generation))
                progress.advance(1, len(generation.token_ids))
    finally:
        table.flush()  # rows that are finished are kept, whatever comes


def response_columns(request: Request, prompt: Sequence[int], generation: "Generation") -> dict[str, Any]:
    """The columns of a rollout that its prompt and response give."""
    return {
        "prompt_id": request.prompt_id,
        "split": request.split,
        "kind": request.kind,
        "category": request.category,
        "prompt": request.text,
        "response": generation.text,
        "response_token_ids": generation.token_ids,
        "num_prompt_tokens": len(prompt),
        "num_output_tokens": len(generation.token_ids),
        "finish_reason": generation.finish_reason,
    }


def row_identity(session: Session, variant: "Variant", sampling: SamplingConfig) -> dict[str, Any]:
    """The columns of a rollout that all of a variant's rows share."""
    installed = versions()
    return {
        "variant": variant.name,
        "variant_hash": variant.hash,
        "sampling": json.dumps(sampling.model_dump(exclude={"seed"}), sort_keys=True),
        "seed": sampling.seed,
        "engine": f"vllm {installed['vllm']}, torch {installed['torch']}",
        "model": model_name(session.config, session.base_hash),
        "form": "base" if variant.edit is None else "in_place",
    }


def make_likelihoods(session: Session, run_dir: RunDir) -> None:
    """Mean log-probability of every response under the base weights: what the offline judge knows of fluency."""
    rows = store.read_rows(run_dir.file(ROLLOUTS))
    replica = session.replica()
    replica.swap(session.base)
    prompts = [session.renderer.render(row["prompt"]) for row in rows]
    with Progress("likelihoods", len(rows)) as progress:
        values = replica.mean_logprobs(prompts, [row["response_token_ids"] for row in rows], lambda: progress.advance())
    scored = [
        {"variant_hash": row["variant_hash"], "prompt_id": row["prompt_id"], "mean_logprob": value}
        for row, value in zip(rows, values, strict=True)
    ]
    store.write_table(run_dir.file(LIKELIHOODS), scored, store.LIKELIHOOD_SCHEMA)


def make_scores(run_dir: RunDir) -> None:
    """Offline grades of every response."""
    from judging.offline import NAME, NOTICE, OfflineJudge, rubric_hash

    say(f"scores: judge '{NAME}' ({NOTICE})")
    rows = store.read_rows(run_dir.file(ROLLOUTS))
    logprobs = {store.key_of(row): row["mean_logprob"] for row in store.read_rows(run_dir.file(LIKELIHOODS))}
    of_base = [logprobs[store.key_of(row)] for row in rows if row["form"] == "base"]
    known = [value for value in of_base if value is not None]
    judge = OfflineJudge(statistics.median(known) if known else None)
    identity = {"judge": NAME, "rubric_hash": rubric_hash()[:16], "repeat": 0, "attempts": 1}
    scores = []
    for row in rows:
        key = {"variant_hash": row["variant_hash"], "prompt_id": row["prompt_id"]}
        grades = judge.score(row["prompt"], row["response"], mean_logprob=logprobs[store.key_of(row)])
        scores.append({**key, **identity, **vars(grades)})
    store.write_table(run_dir.file(SCORES), scores, store.SCORE_SCHEMA)


def make_summary(session: Session, run_dir: RunDir) -> dict[str, Any]:
    """The summary of a run as JSON."""
    scores = {store.key_of(row): row for row in store.read_rows(run_dir.file(SCORES))}
    rows = [{**row, **scores[store.key_of(row)]} for row in store.read_rows(run_dir.file(ROLLOUTS))]
    return summarise(rows, session.config, expects_decline=DECLINED)


def _without(table: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in keys}
