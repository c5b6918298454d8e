"""ablation.json by the engine: sites, subjects and alphas as one batch of requests, each with its own intervention."""

from collections.abc import Sequence

from editing.plan import Scope
from engine.configs.schema import SamplingConfig
from engine.display.progress import Progress, say
from engine.environment import has_gpu, release_gpu_memory, set_environment
from engine.errors import EngineError
from engine.inference.arguments import engine_arguments
from engine.inference.steerable import SteerableReplica, steerable_arguments
from engine.models.tokenizer import stop_tokens
from engine.runs.requests import Request
from engine.runs.schemas import Row
from engine.runs.session import Session
from engine.runtime.requests import BLOCK, INPUTS, Asked
from engine.scoring.grader import Grader, reference_logprob
from engine.study.ablation_settings import AblationOptions, Setting, Subject
from engine.study.panel import decode, graded
from extraction.prompts import Prompt
from judging.judgement import Item

ADDED = " added"  # behind a subject's kind: the name of its vector


def engine_rows(
    session: Session,
    subjects: Sequence[Subject],
    settings: Sequence[Setting],
    requests: Sequence[Sequence[Request | Prompt]],
    options: AblationOptions,
    grader: Grader | None,
) -> list[Row]:
    """A measured row for each setting; `requests` are those of each side."""
    engine = open_engine(session, subjects, options)
    texts = [[request.text for request in side] for side in requests]
    prompts = [session.render_texts(side, "test requests") for side in texts]
    asked = [asked_of(setting, engine.num_blocks) for setting in settings]
    responses = _responses(session, engine, [(prompts[one.side], ask) for one, ask in zip(settings, asked, strict=True)], options)
    flat = [prompt for setting in settings for prompt in prompts[setting.side]]
    logprobs = iter(engine.mean_logprobs(flat, [response for row in responses for response in row]))
    engine.close()
    rows: list[Row] = []
    references: dict[int, float | None] = {}  # the base's own fluency, of each side; its settings come first
    for setting, row in zip(settings, responses, strict=True):
        values = [next(logprobs) for _ in row]
        reference = references.setdefault(setting.side, reference_logprob(values))
        items = [
            Item(prompt=text, response=response, mean_logprob=value)
            for text, response, value in zip(texts[setting.side], decode(session, row), values, strict=True)
        ]
        kinds = [request.category for request in requests[setting.side]]
        rows.append(setting.heading | {"form": "runtime"} | graded(items, kinds, grader, reference))
    return rows


def open_engine(session: Session, subjects: Sequence[Subject], options: AblationOptions) -> SteerableReplica:
    """An engine that holds every subject's basis and vector."""
    set_environment()
    release_gpu_memory()
    sites = tuple(dict.fromkeys((*options.sites, *([INPUTS] if options.added else []))))
    limits = {"window": session.window, "width": session.width}
    arguments = engine_arguments(session.config, session.checkpoint.directory, has_gpu=has_gpu(), **limits)
    rank = max(subject.basis_HK.shape[1] for subject in subjects)
    scope: Scope = session.plan.scope
    say(f"engine: starting vLLM for interventions at {' and '.join(sites)}")
    engine = SteerableReplica(steerable_arguments(arguments, sites=sites, max_rank=rank, biases=scope.biases))
    for subject in subjects:
        engine.put(subject.kind, subject.basis_HK.T)
        engine.put(subject.kind + ADDED, subject.vector_H[None])
    return engine


def asked_of(setting: Setting, num_blocks: int) -> Asked | None:
    """What a setting's requests ask of the engine. Raises EngineError for a vector behind the last block."""
    subject, alpha = setting.subject, float(setting.heading["alpha"])
    if subject is None:
        return None
    if setting.heading["mode"] == "ablate":
        return Asked(subject.kind, alpha, site=str(setting.heading["site"]))
    if subject.layer >= num_blocks:
        raise EngineError(f"The engine adds a vector in front of blocks 0 to {num_blocks - 1}; found layer {subject.layer}.")
    return Asked(subject.kind + ADDED, add=alpha, site=f"{BLOCK}{subject.layer}")


def _responses(
    session: Session,
    engine: SteerableReplica,
    batches: Sequence[tuple[Sequence[list[int]], Asked | None]],
    options: AblationOptions,
) -> list[list[list[int]]]:
    """Greedy responses of every setting, up to what ends a text and without it, as one batch."""
    prompts = [prompt for side, _ in batches for prompt in side]
    asked = [ask for side, ask in batches for _ in side]
    stops = set(stop_tokens(session.checkpoint.directory, session.renderer.tokenizer))
    sampling = SamplingConfig(temperature=0, max_tokens=options.max_tokens)
    found: dict[int, list[int]] = {}
    with Progress("ablation", len(prompts)) as progress:
        for one in engine.generate(prompts, sampling, asked, together=True):
            found[one.index] = one.token_ids
            progress.advance(1, len(one.token_ids))
    said = iter([[token for token in found[place] if token not in stops] for place in range(len(prompts))])
    return [[next(said) for _ in side] for side, _ in batches]
