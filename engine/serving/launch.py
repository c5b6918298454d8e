"""`bin/serve`: one variant as its folded checkpoint, or several as adapters on one copy of the base, behind vLLM's own server.

What is missing is made first; then this process becomes `vllm serve`, so that its signals, logs and options are vLLM's.
"""

import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editing.adapter import check_adaptable
from engine.display.progress import say
from engine.environment import has_gpu, release_gpu_memory
from engine.errors import EngineError
from engine.inference.answers import opening_of
from engine.inference.arguments import OPENED_AS, hardware_arguments
from engine.inference.runtime_replica import beyond_runtime, site_of
from engine.inference.steerable import MAX_RANK, steerable_arguments
from engine.models.variant import Variant
from engine.paths import cache_dir, hash_of, write_bytes, write_json, write_text
from engine.rollout.variants import BASE, SWAPPABLE, variants_of
from engine.runs.of_config import check_has_directions
from engine.runs.session import Session
from engine.runtime.requests import INPUTS
from engine.serving.checks import HOSTS_VARIABLE, KEY_VARIABLE, LOCAL_HOSTS, LOOPBACK, ServeOptions, share_for_swaps
from engine.serving.folders import Launch, ServedModel, base_folder, variant_folder
from engine.vllm_compat import WORKER_EXTENSION, adapter_ranks

STEERER = "engine.serving.steer.SteerMiddleware"
SWAPPER, GUARD = "engine.serving.swap.SwapMiddleware", "engine.serving.guard.KeyMiddleware"
DOOR = "engine.serving.door.DoorMiddleware"

DEFAULTS = {"VLLM_NO_USAGE_STATS": "1"}
# The guard and the gate are Python, around Python's server; a stored response would be made after its request has ended.
NEEDED = {"VLLM_USE_RUST_FRONTEND": "0", "VLLM_ENABLE_RESPONSES_API_STORE": "0"}
# Whatever the shell says: routes that call the workers, that load adapters by path, and arguments that are unpickled.
NEEDED |= dict.fromkeys(("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_ALLOW_INSECURE_SERIALIZATION"), "0")


def prepare(sessions: Sequence[Session], options: ServeOptions, key: str | None) -> Launch:
    """Make what is missing (directions, checkpoint or adapters) and put the command together."""
    as_adapters = options.with_base or len(sessions) > 1
    for session in sessions if as_adapters else ():
        check_adaptable(session.plan, keep_norms=session.config.edit.keep_norms)
    made = zip(sessions, _variants(sessions), strict=True)
    allowed = options.allow_changed
    models = [variant_folder(session, variant, as_adapter=as_adapters, allow_changed=allowed) for session, variant in made]
    first = sessions[0]
    weights = base_folder(first) if as_adapters else models[0].folder
    served = [ServedModel(BASE, first.base.hash, weights), *models] if as_adapters else models
    command = _command(first, weights, served[0].name, options)
    if as_adapters:
        command += _lora_flags(sessions, models)
    return Launch([*command, *_around(key), *options.extra], served, _url(options), _environment(key, options))


def _command(session: Session, weights: Path, name: str, options: ServeOptions) -> list[str]:
    """vLLM's server on a folder of weights, with the configuration's engine arguments."""
    hardware: dict[str, Any] = hardware_arguments(has_gpu=has_gpu())
    session.arithmetic.say()
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(weights)]
    command += ["--host", options.host, "--port", str(options.port), "--served-model-name", name]
    arguments = {"dtype": session.config.model.dtype, **OPENED_AS, **hardware, **session.config.vllm}
    arguments.pop("distributed_executor_backend", None)  # the server keeps its engine in a process of its own
    if session.renderer.template != session.renderer.tokenizer.chat_template:
        arguments["chat_template"] = str(_template_file(session.renderer.template))
    if kwargs := session.config.model.chat_template_kwargs:
        arguments["default_chat_template_kwargs"] = kwargs
    return [*command, *flags_of(arguments)]


def _template_file(template: str) -> Path:
    """A file with the template that prompts were rendered through, where the folder's own is another."""
    file = cache_dir() / "served" / f"template-{hash_of({'template': template})}.jinja"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, template)
    return file


def _around(key: str | None, *middleware: str) -> list[str]:
    """Flags of what stands around vLLM's application: the guard outermost, where there is a key, then the door."""
    return [part for name in (*middleware, DOOR, *([GUARD] if key else [])) for part in ("--middleware", name)]


def _environment(key: str | None, options: ServeOptions) -> dict[str, str]:
    """What the guard and the door read: the key, and on loopback the names that this machine goes by."""
    hosts = ",".join(LOCAL_HOSTS) if options.host in LOOPBACK else ""
    return {HOSTS_VARIABLE: hosts} | ({KEY_VARIABLE: key} if key else {})


def _url(options: ServeOptions) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{host}:{options.port}/v1"


def prepare_swappable(sessions: Sequence[Session], options: ServeOptions, key: str | None) -> Launch:
    """The base's weights in one engine that takes up any of the variants on an admin's word; see `engine.serving.swap`."""
    from engine.serving import swap

    for session in sessions:
        session.check_swappable()
    variants = [sessions[0].base, *_variants(sessions)]
    folder = cache_dir() / "served" / f"swappable-{hash_of({variant.name: variant.hash for variant in variants})}"
    catalogue = _catalogue(folder, sessions[0], variants)
    extension = ["--worker-extension-cls", WORKER_EXTENSION, "--api-server-count", "1"]
    weights = base_folder(sessions[0])
    command = [*_command(sessions[0], weights, SWAPPABLE, options), *extension, *_around(key, SWAPPER), *options.extra]
    if has_gpu():  # last: it holds whatever share the user names, less what swaps keep
        command += flags_of(share_for_swaps(sessions[0], options))
    admin_key = os.environ.get(swap.KEY_VARIABLE) or secrets.token_urlsafe(24)
    environment = {swap.CATALOGUE_VARIABLE: str(catalogue), swap.KEY_VARIABLE: admin_key, **_environment(key, options)}
    models = [ServedModel(SWAPPABLE, f"{len(variants)} variants, now base", weights)]
    return Launch(command, models, _url(options), environment)


def prepare_steerable(sessions: Sequence[Session], options: ServeOptions, key: str | None) -> Launch:
    """The base's weights in one engine whose requests each carry a variant; see `engine.serving.steer`."""
    from engine.serving import steer

    first, variants = sessions[0], _variants(sessions)
    for variant in variants:
        if reason := beyond_runtime(variant):
            raise EngineError(f"Variant {variant.name} {reason}, which --steerable does not do. Serve it with --swappable.")
    ranks = [variant.edit.basis_HK.shape[1] for variant in variants if variant.edit is not None]
    sites = dict.fromkeys([INPUTS, *(site for variant in variants for site in site_of(variant).split("+"))])
    catalogue = _steer_catalogue(first, variants, list(sites))
    asked = steerable_arguments({}, sites=list(sites), max_rank=max([MAX_RANK, *ranks]), biases=first.config.edit.biases)
    weights = base_folder(first)
    names = [BASE, *(variant.name for variant in variants)]
    command = [*_command(first, weights, names[0], options), *flags_of(asked), "--api-server-count", "1"]
    place = command.index("--served-model-name")
    command[place + 2 : place + 2] = names[1:]
    command += [*_around(key, STEERER), *options.extra]
    environment = {steer.CATALOGUE_VARIABLE: str(catalogue), **_environment(key, options)}
    served = [ServedModel(BASE, first.base.hash, weights), *(ServedModel(each.name, each.hash, weights) for each in variants)]
    return Launch(command, served, _url(options), environment)


def _steer_catalogue(session: Session, variants: Sequence[Variant], sites: Sequence[str]) -> Path:
    """The file that the middleware reads: sites, and each variant's hash, rows, usual strength and site."""
    from safetensors.torch import save

    folder = cache_dir() / "served" / f"steerable-{hash_of({variant.name: variant.hash for variant in variants})}"
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for variant in variants:
        assert variant.edit is not None
        rows = folder / f"{variant.hash}.safetensors"
        write_bytes(rows, save({"rows": variant.edit.basis_HK.T.float().contiguous()}))
        entry = {"hash": variant.hash, "rows": str(rows), "alpha": variant.edit.alpha, "site": site_of(variant)}
        entries[variant.name] = entry
    about = {"sites": list(sites), "num_blocks": session.checkpoint.num_layers, "variants": entries}
    write_json(folder / "catalogue.json", about)
    return folder / "catalogue.json"


def _catalogue(folder: Path, session: Session, variants: Sequence[Variant]) -> Path:
    """The file that the middleware reads: how the workers open, and each variant's hash, basis file and alphas."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for variant in variants:
        basis = None
        if variant.edit is not None:
            basis = str(folder / f"{variant.hash}.safetensors")
            write_bytes(Path(basis), save({"basis": variant.edit.basis_HK.contiguous()}))
        keep_norms = variant.edit.keep_norms if variant.edit else False
        entries[variant.name] = {"hash": variant.hash, "basis": basis, "alphas": variant.alphas, "keep_norms": keep_norms}
    opening = opening_of(str(session.checkpoint.directory), *(variant.plan.scope for variant in variants))
    write_json(folder / "catalogue.json", {"opening": list(opening), "variants": entries})
    return folder / "catalogue.json"


def become(launch: Launch, environment: Mapping[str, str]) -> None:
    """Turn this process into the server; a process beside it says when it is ready.

    `environment` is the user's: what our own stages set for vLLM in this process is not the server's.
    """
    release_gpu_memory()
    from engine.serving.ready import announce_when_ready

    announce_when_ready(launch, os.getpid())
    os.execve(launch.command[0], launch.command, {**DEFAULTS, **environment, **NEEDED, **launch.environment})


def flags_of(arguments: Mapping[str, Any]) -> list[str]:
    """vLLM's command line for engine arguments by name: True is a bare flag, False its --no- form, tables are JSON."""
    flags: list[str] = []
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, Mapping):
            flags += [flag, json.dumps(dict(value))]
        elif isinstance(value, list):
            flags += [flag, *map(str, value)]
        elif value is not None:
            flags += [flag, str(value)]
    return flags


def _variants(sessions: Sequence[Session]) -> list[Variant]:
    for session in sessions:
        check_has_directions(session.config, "bin/serve")
        session.rendered_pairs()  # what a tokenizer or template cannot do shows before a run directory is made
    return variants_of(sessions)


def _lora_flags(sessions: Sequence[Session], models: Sequence[ServedModel]) -> list[str]:
    """One adapter a variant, on the projections that it edits and on nothing else."""
    say("serve: adapters on one copy of the base; their weights equal the folded model's to rounding, not bit for bit")
    rank = max(session.config.directions.k or len(session.layers()) for session in sessions)
    ranks = adapter_ranks()
    allowed = [size for size in ranks if size >= rank]
    if not allowed:
        raise EngineError(f"vLLM serves adapters of rank {ranks[-1]} at most; found {rank}.")
    targets = sorted({tensor.name.split(".")[-2] for session in sessions for tensor in session.plan.edited})
    modules = [json.dumps({"name": model.name, "path": str(model.folder)}) for model in models]
    flags = ["--enable-lora", "--max-loras", str(len(models)), "--max-lora-rank", str(min(allowed))]
    return [*flags, "--lora-target-modules", *targets, "--lora-modules", *modules]


def describe_models(launch: Launch) -> list[str]:
    """A line a model: its name, what it is and its hash."""
    return [f"{model.name}: {model.variant_hash}, {model.folder}" for model in launch.models]


def admin_lines(launch: Launch) -> list[str]:
    """How to swap, where that can be done; with the admin key where it was made here."""
    from engine.serving import swap

    if swap.KEY_VARIABLE not in launch.environment:
        return []
    made = (
        "" if os.environ.get(swap.KEY_VARIABLE) else f"; the admin key, shown this once: {launch.environment[swap.KEY_VARIABLE]}"
    )
    body = json.dumps({"variant": "NAME"})
    route = launch.url.removesuffix("/v1") + swap.ROUTE
    return [f"swap with: curl {route} -H 'Authorization: Bearer ADMIN_KEY' -d '{body}'{made}"]
