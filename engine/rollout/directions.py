"""The directions stage: the base as a transformers model, its streams over the training pairs, the file that comes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.display.progress import Progress, say
from engine.environment import has_gpu, versions
from engine.errors import EngineError
from engine.paths import copy_file, shorten, user_path
from engine.runs import timings
from engine.runs.files import DIRECTIONS
from engine.runs.inputs import RunInputs
from engine.runs.of_config import model_name
from engine.runs.run_dir import RunDir
from engine.runs.session import Session
from extraction.errors import ExtractionError
from extraction.positions import LAST, RESPONSE, is_generated, offsets_of
from extraction.thinking import TRACE, Thought, place_in

if TYPE_CHECKING:
    from torch import Tensor

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
    generated = any(map(is_generated, positions))
    if estimator == "mean_difference" and not generated:
        pairs = session.rendered_pairs()
        model = transformers_model(session)
        with Progress("directions", 2 * len(pairs), "prompts") as progress:
            found = extract_at(model, pairs, positions, controls=controls, kinds=kinds, on_prompt=lambda done: progress.advance())
        tokens = sum(len(pair.declined) + len(pair.answered) for pair in pairs)
        timings.keep(session, timings.DIRECTIONS, tokens, progress.seconds)
        return found
    responses = pair_responses(session) if generated else None
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
    from extraction.residuals import collect

    prompts, middle = [*declined, *answered], len(declined)
    at_prompt = [name for name in positions if not is_generated(name)]
    found = {}
    passes = bool(at_prompt) + (0 if responses is None else len(positions) - len(at_prompt))
    with Progress(label, len(prompts) * passes, "prompts") as progress:
        if at_prompt:
            offsets = offsets_of({name: positions[name] for name in at_prompt}, prompts, label)
            resid_LNPH = collect(model, prompts, offsets, lambda done: progress.advance(), last_layer=last_layer)
            found = {name: resid_LNPH[:, :, place] for place, name in enumerate(at_prompt)}
        if responses is not None:
            for name in filter(is_generated, positions):
                found[name] = generated_streams(model, prompts, responses, name, label, lambda done: progress.advance())
    for resid_LNH in found.values():
        check_finite(model, resid_LNH)
    return {name: Streams(found[name][:, :middle], found[name][:, middle:]) for name in positions}


def generated_streams(
    model: Any,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    name: str,
    label: str,
    on_prompt: Callable[[int], None],
) -> "Tensor":
    """Residual streams at one position of responses, (L+1, N, H): the mean of the response or of its trace, or one token.

    Raises ExtractionError for a response without such a position, by its place from 1.
    """
    from extraction.residuals import collect, response_means

    if name == RESPONSE:
        return response_means(model, prompts, responses, on_prompt)
    thoughts = [thought_of(response, name, f"{label}, response {place}") for place, response in enumerate(responses, 1)]
    if name == TRACE:
        behind = [[*prompt, *one[: one.parts.begin]] for prompt, one in zip(prompts, thoughts, strict=True)]
        return response_means(model, behind, [one[one.parts.begin : one.parts.end] for one in thoughts], on_prompt)
    places = [place_of(one, name, f"{label}, response {number}") for number, one in enumerate(thoughts, 1)]
    sequences = [[*prompt, *one[: place + 1]] for prompt, one, place in zip(prompts, thoughts, places, strict=True)]
    return collect(model, sequences, [-1], on_prompt)[:, :, 0]


def thought_of(response: Sequence[int], name: str, where: str) -> Thought:
    """A response with its parts. Raises ExtractionError for one without, and for one that its position is not in."""
    if not isinstance(response, Thought):
        raise ExtractionError(f"Position {name} is one of models that think first: say how a trace is marked (model.reasoning).")
    parts = response.parts
    if parts.unfinished or parts.begin is None or (name == TRACE and parts.begin == parts.end):
        said = "no trace" if parts.begin is None else "a trace that has not ended" if parts.unfinished else "an empty trace"
        raise ExtractionError(f"{where} has {said}, so no position {name}. Allow more tokens, or leave the pair out.")
    return response


def place_of(thought: Thought, name: str, where: str) -> int:
    """A single token's place in a response. Raises ExtractionError where there is none."""
    try:
        place = place_in(name, thought.parts)
    except ExtractionError as error:
        raise ExtractionError(f"{where}: {error}") from error
    if place >= len(thought):
        raise ExtractionError(f"{where} has no answer behind its trace, so no position {name}. Allow more tokens.")
    return place


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
            said = generation.token_ids
            thinking = session.thinking
            responses[generation.index] = (
                said if thinking is None else Thought(said, thinking.parts(list(prompts[generation.index]), said))
            )
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
