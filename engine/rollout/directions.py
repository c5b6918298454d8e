"""The directions stage: the base as a transformers model, its streams over the training pairs, the file that comes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.display.progress import Progress, say
from engine.environment import has_gpu, versions
from engine.errors import EngineError
from engine.paths import copy_file, shorten, user_path
from engine.runs.files import DIRECTIONS
from engine.runs.inputs import RunInputs, model_name
from engine.runs.run_dir import RunDir
from engine.runs.session import Session
from extraction.positions import LAST, RESPONSE, offsets_of

if TYPE_CHECKING:
    from extraction.controls import Control
    from extraction.directions import Directions, Extraction, Streams

SHARE_FOR_WEIGHTS = 0.8  # of a GPU


def ensure_directions(session: Session, run_dir: RunDir) -> None:
    """directions.safetensors of the run directory."""
    work = partial(make_directions, session, run_dir)
    run_dir.run_stage("directions", work, settings=session.directions_inputs(), writes=[DIRECTIONS])


def check_given_directions(session: Session) -> None:
    """`check_directions` of the configured file, where there is one."""
    if session.config.directions.file is not None:
        check_directions(session, user_path(session.config.directions.file))


def check_directions(session: RunInputs, file: Path, *, allow_other_base: bool = False) -> None:
    """Raise EngineError for a directions file of another position, estimator or base than the configuration's."""
    from extraction.directions import MEAN_DIFFERENCE
    from extraction.files import read_metadata

    metadata = read_metadata(file)
    wanted = session.config.directions.model_dump(include={"position", "estimator"})
    for key, default in (("position", LAST), ("estimator", MEAN_DIFFERENCE)):
        if (found := metadata.get(key, default)) != wanted[key]:
            raise EngineError(
                f"{file} was made with {key} {found}, not {wanted[key]}. If that is what you mean, add "
                f"--set directions.{key}={found}."
            )
    made_from = metadata.get("base_hash", "an unknown base")
    if made_from != session.base_hash and not allow_other_base:
        raise EngineError(
            f"{file} was extracted from another base ({shorten(made_from)}) than {session.config.model.path} "
            f"({shorten(session.base_hash)}). If that is what you mean, add --allow-other-base."
        )


def make_directions(session: Session, run_dir: RunDir) -> None:
    """Every layer's direction: extracted from the training pairs, or those of the configured file."""
    from extraction.files import save_directions

    if session.config.directions.file is not None:
        given = user_path(session.config.directions.file)
        check_directions(session, given)
        copy_file(given, run_dir.file(DIRECTIONS))
        return
    save_directions(run_dir.file(DIRECTIONS), extract_configured(session), provenance(session))


def extract_configured(session: Session) -> "Directions":
    """Every layer's direction at the configured position, extracted from the session's training pairs."""
    position = session.config.directions.position
    return extract(session, session.offsets([position])).directions[position]


def extract(session: Session, positions: Mapping[str, int], controls: "Sequence[Control]" = ()) -> "Extraction":
    """Directions of every layer at each position, and of the controls, on the GPU where there is one.

    Mean differences at prompt tokens are streamed; other estimators, and the response's mean, need every prompt's stream.
    """
    from engine.rollout.controls import control_directions
    from extraction.directions import Extraction, directions_from, extract_at

    estimator, kinds = session.config.directions.estimator, [pair.category for pair in session.pairs]
    if estimator == "mean_difference" and RESPONSE not in positions:
        pairs = session.rendered_pairs()
        model = transformers_model(session)
        with Progress("directions", 2 * len(pairs), "prompts") as progress:
            return extract_at(model, pairs, positions, controls=controls, kinds=kinds, on_prompt=lambda done: progress.advance())
    responses = pair_responses(session) if RESPONSE in positions else None
    streams = streams_at(session, transformers_model(session), positions, responses)
    return Extraction(
        {name: directions_from(found, name, estimator) for name, found in streams.items()},
        {
            control.name: {name: control_directions(found, control, name, estimator, kinds) for name, found in streams.items()}
            for control in controls
        },
    )


def streams_at(
    session: Session,
    model: Any,
    positions: Mapping[str, int],
    responses: Sequence[Sequence[int]] | None = None,
    *,
    last_layer: int | None = None,
) -> "dict[str, Streams]":
    """Every training prompt's residual streams, by position, up to `last_layer` (None: all); `responses` (declined sides
    first) where `response` is a position."""
    pairs = session.rendered_pairs()
    sides = [pair.declined for pair in pairs], [pair.answered for pair in pairs]
    return prompt_streams(model, *sides, positions, responses, "directions", last_layer=last_layer)


def prompt_streams(
    model: Any,
    declined: Sequence[Sequence[int]],
    answered: Sequence[Sequence[int]],
    positions: Mapping[str, int],
    responses: Sequence[Sequence[int]] | None,
    label: str,
    *,
    last_layer: int | None = None,
) -> "dict[str, Streams]":
    """Residual streams of rendered prompts, both sides, by position. Raises ExtractionError for values that are not finite.

    Every prompt's vectors are kept: (L+1) H values in the model's dtype a prompt and position, 270 kB for an 8B model.
    """
    from extraction.directions import Streams
    from extraction.finite import check_finite
    from extraction.residuals import collect, response_means

    prompts, middle = [*declined, *answered], len(declined)
    at_prompt = [name for name in positions if name != RESPONSE]
    found = {}
    with Progress(label, len(prompts) * (bool(at_prompt) + (responses is not None)), "prompts") as progress:
        if at_prompt:
            offsets = offsets_of({name: positions[name] for name in at_prompt}, prompts, label)
            resid_LNPH = collect(model, prompts, offsets, lambda done: progress.advance(), last_layer=last_layer)
            found = {name: resid_LNPH[:, :, place] for place, name in enumerate(at_prompt)}
        if responses is not None:
            found[RESPONSE] = response_means(model, prompts, responses, lambda done: progress.advance())
    for resid_LNH in found.values():
        check_finite(model, resid_LNH)
    return {name: Streams(found[name][:, :middle], found[name][:, middle:]) for name in positions}


def pair_responses(session: Session) -> list[list[int]]:
    """The base's own responses to the training pairs, token ids, declined sides first. Raises EngineError for an empty one."""
    pairs = session.rendered_pairs()
    responses = base_responses(session, [pair.declined for pair in pairs] + [pair.answered for pair in pairs])
    if empty := [place for place, response in enumerate(responses) if not response]:
        side, pair = "declined" if empty[0] < len(pairs) else "answered", empty[0] % len(pairs) + 1
        raise EngineError(
            f"The base says nothing to {len(empty)} training prompts (first: the {side} side of pair {pair}), "
            "so their responses have no mean. Leave these pairs out, or choose another position."
        )
    return responses


def base_responses(session: Session, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The base's responses to rendered prompts, token ids, from the one engine; its memory is given back on a GPU."""
    replica = session.replica()
    replica.swap(session.base)
    responses: list[list[int]] = [[] for _ in prompts]
    with Progress("responses of the base", len(prompts)) as progress:
        for generation in replica.generate(prompts, session.config.sampling):
            responses[generation.index] = generation.token_ids
            progress.advance(1, len(generation.token_ids))
    if has_gpu():
        session.close()
    return responses


def provenance(session: Session) -> dict[str, str]:
    """A direction file's metadata on its origin."""
    return {"model": model_name(session.config, session.base_hash), "base_hash": session.base_hash, **versions()}


def transformers_model(session: Session) -> Any:
    """The base as a transformers model: on the GPU where there is one, over all GPUs where it fills most of one.

    Eager attention: a prompt's bits are then the same alone, in a batch, and behind a shared prefix (`shares_prefix`).
    """
    import torch

    from engine.models.load import causal_model
    from engine.models.tokenizer import stop_tokens

    session.arithmetic.say()
    dtype = session.config.model.dtype
    options = {"dtype": getattr(torch, dtype), "attn_implementation": "eager"}
    memory = [torch.cuda.mem_get_info(gpu) for gpu in range(torch.cuda.device_count())]
    placed = device_map(session.engine_bytes, memory)
    model = causal_model(session.checkpoint, **options, **placed.options)
    model.generation_config.eos_token_id = stop_tokens(session.checkpoint.directory, session.renderer.tokenizer)
    say(f"model: {model_name(session.config, session.base_hash)} in transformers, {dtype}, {placed.where}")
    return model


@dataclass(frozen=True)
class DeviceMap:
    """Arguments of `from_pretrained` that place the weights, and the place in words."""

    options: dict[str, Any]
    where: str


def device_map(size: int, memory: Sequence[tuple[int, int]]) -> DeviceMap:
    """Where `size` bytes of weights go, by each GPU's free and total bytes.

    One GPU where they take at most 80 % of it, so that a batch's activations fit beside them; else all GPUs, the rest in the
    host's memory.
    """
    if not memory:
        return DeviceMap({}, "cpu")
    if size <= SHARE_FOR_WEIGHTS * memory[0][1]:
        return DeviceMap({"device_map": {"": 0}}, "cuda")
    limits: dict[Any, int] = {gpu: int(SHARE_FOR_WEIGHTS * free) for gpu, (free, _) in enumerate(memory)}
    beyond = ", the rest in host memory (slow)" if sum(limits.values()) < size else ""
    options = {"device_map": "auto", "max_memory": {**limits, "cpu": 10**15}}
    return DeviceMap(options, f"over {len(memory)} GPU(s), {size / 1e9:.0f} GB{beyond}")
