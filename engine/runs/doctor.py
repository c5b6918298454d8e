"""What a model folder is to this project, told in seconds and without its weights: for `bin/doctor`.

Each question is asked of the module that decides it elsewhere too. What stands against using the model is collected, and not
raised at the first.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editing.checkpoint import Checkpoint
from editing.errors import EditError
from editing.families import FAMILIES
from editing.plan import PROJECTIONS, EditPlan, family_of, plan_edit
from engine.configs.schema import ModelConfig
from engine.environment import has_gpu
from engine.errors import EngineError
from engine.inference.arguments import kept_bytes
from engine.inference.arithmetic import BYTES_PER_VALUE, arithmetic_of, stored_type
from engine.models.locate import locate_model, open_model
from engine.models.tokenizer import open_renderer, stop_tokens
from engine.models.window import switch_of, vocabulary_of, window_of
from engine.vllm_compat import architectures
from extraction.errors import ExtractionError

THROUGH = " through transformers' code"
CACHE_BYTES = 2 << 30  # what the engine keeps for keys and values on a CPU
QUANTISED_WORKS = (
    "What works: edit the unquantised checkpoint, as an adapter (bin/edit --adapter), and serve the quantised one with it "
    "(vllm serve --enable-lora), where vLLM takes adapters on that method."
)


@dataclass
class Examination:
    """facts: what was found, in order, by name. against: what stands against using the model."""

    model: str
    facts: dict[str, str] = field(default_factory=dict)
    against: list[str] = field(default_factory=list)
    next: str = ""

    def ask(self, question: Callable[[], Any]) -> Any:
        """A question's answer; None where it is refused, which is kept."""
        try:
            return question()
        except (EngineError, EditError, ExtractionError) as error:
            self.against.append(str(error))
            return None


def examine(model: ModelConfig) -> Examination:
    """Everything that can be told of a model without loading it."""
    found = Examination(model.path)
    directory = found.ask(lambda: locate_model(model))
    if directory is None:
        return found
    checkpoint: Checkpoint | None = found.ask(lambda: open_model(model))
    if checkpoint is None:
        _look_at_config(found, directory)
    else:
        _look_at_weights(found, checkpoint)
        _look_at_machine(found, checkpoint, model)
    _look_at_prompts(found, directory, checkpoint, model)
    found.next = _next(found, model)
    return found


def _look_at_config(found: Examination, directory: Path) -> None:
    """The type of a folder whose weights are refused."""
    try:
        config = json.loads((directory / "config.json").read_text())
        found.facts["type"] = f"{config['model_type']}{'' if config['model_type'] in FAMILIES else ' (not known)'}"
        if isinstance(config.get("quantization_config"), dict):
            found.facts["precision"] = f"quantised: {config['quantization_config'].get('quant_method', 'unknown method')}"
            found.against.append(QUANTISED_WORKS)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        found.facts["type"] = "no readable config.json"


def _look_at_weights(found: Examination, checkpoint: Checkpoint) -> None:
    values = checkpoint.num_values
    found.facts["type"] = f"{checkpoint.model_type}, {checkpoint.num_layers} blocks, width {checkpoint.hidden_size}"
    found.facts["weights"] = f"{_count(values)} values in {len(checkpoint.files)} file(s), {stored_type(checkpoint)}"
    if checkpoint.left:
        found.facts["left aside"] = ", ".join(file.name for file in checkpoint.left)
    family = found.ask(lambda: family_of(checkpoint))
    if family is None:
        return
    found.facts["family"] = family.label + (", text tower" if family.text_type != "" else "")
    if unknown := [name for name in checkpoint.tensors if family.classify(name, checkpoint.num_layers) is None]:
        found.facts["not known"] = f"{len(unknown)} tensors, {unknown[0]} first"
    plan: EditPlan | None = found.ask(lambda: plan_edit(checkpoint))
    if plan is not None:
        roles = Counter(tensor.role for tensor in plan.writers)
        found.facts["writers"] = ", ".join(f"{count} {role}" for role, count in roles.items() if role in PROJECTIONS)
        others = ", ".join(f"{count} {role}" for role, count in roles.items() if role not in PROJECTIONS)
        found.facts["left by default"] = others or "none"
        if any(tensor.gain for tensor in plan.writers):
            found.facts["norm behind"] = "yes: the edit stands in front of it, its scale stays"
        found.facts["head"] = "the embedding (tied)" if plan.ties_head else "a matrix of its own"


def _count(values: int) -> str:
    return f"{values / 1e6:,.0f} million" if values >= 1e6 else f"{values:,}"


def _look_at_prompts(found: Examination, directory: Path, checkpoint: Checkpoint | None, model: ModelConfig) -> None:
    """The rendering, the positions by name with the tokens that they stand for, and the window."""
    renderer = found.ask(lambda: open_renderer(directory, model, quick=True))
    if renderer is not None:
        tokenizer = renderer.tokenizer
        ids = renderer.render("Hello")
        post = [repr(tokenizer.decode([token])) for token in ids[-renderer.num_post_tokens :]]
        found.facts["template"] = "the model's own" if model.chat_template is None else model.chat_template
        begins = tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
        found.facts["begins with BOS"] = "yes" if begins else "no"
        stops = found.ask(lambda: stop_tokens(directory, tokenizer)) or []
        found.facts["stops at"] = ", ".join(repr(tokenizer.decode([token])) for token in stops) or "no token"
        found.facts["system prompt"] = "has a place" if renderer.takes_system() else "has none"
        switches = sorted(key for key in renderer.reads if "think" in key or "reason" in key)
        found.facts["thinking"] = f"switched by {', '.join(switches)}" if switches else "no switch in the template"
        found.facts["clock"] = f"fixed at {model.clock}" if model.clock else "not printed"
        found.facts["last_instruction"] = repr(tokenizer.decode([ids[-renderer.num_post_tokens - 1]])) + " (of Hello)"
        found.facts |= {f"post_instruction:{place}": token for place, token in enumerate(post[:-1], 1)}
        found.facts["last"] = post[-1]
        rows = None if checkpoint is None else found.ask(lambda: vocabulary_of(checkpoint))
        if rows is not None and max(ids) >= rows:
            found.against.append(f"The tokenizer gives token {max(ids)}; the embedding has {rows} rows.")
    if checkpoint is not None:
        switch = switch_of(checkpoint)
        beyond = f"; rotary frequencies change beyond {switch:,}" if switch else ""
        found.facts["window"] = f"{window_of(checkpoint):,} tokens{beyond}"


def _look_at_machine(found: Examination, checkpoint: Checkpoint, model: ModelConfig) -> None:
    """The type that the model runs in here, whether vLLM has it, and the memory that it takes."""
    arithmetic = arithmetic_of(model.dtype, checkpoint)
    found.facts |= {"runs in": arithmetic.dtype, "because": arithmetic.reason}
    names = [str(name) for name in checkpoint.config.get("architectures") or []]
    listed = architectures()
    known = [f"runs {name}{THROUGH if listed[name] else ''}" for name in names if name in listed]
    unlisted = f"does not list {', '.join(names) or 'an architecture'}; it tries transformers' code"
    found.facts["vLLM"] = known[0] if known else unlisted
    size = BYTES_PER_VALUE[arithmetic.dtype] * checkpoint.num_values
    kept = kept_bytes(checkpoint, plan_edit(checkpoint)) if has_gpu() and not found.against else 0
    need = size + kept + CACHE_BYTES
    have = _machine_bytes()
    found.facts |= {
        "memory, extraction": f"{size / 1e9:.1f} GB",
        "memory, engine": f"{(size + CACHE_BYTES) / 1e9:.1f} GB",
        "memory, swap": f"{kept / 1e9:.1f} GB",
        "memory here": f"{have / 1e9:.1f} GB{'' if has_gpu() else ' free'}",
    }
    if need > have:
        found.against.append(f"The engine takes about {need / 1e9:.0f} GB, and this machine has {have / 1e9:.0f} GB free.")


def _machine_bytes() -> int:
    """Bytes of the GPUs, or those of the machine that are free."""
    if has_gpu():
        from engine.runs.machine import gpu_memory

        return sum(gpu_memory())
    import psutil

    return int(psutil.virtual_memory().available)


def _next(found: Examination, model: ModelConfig) -> str:
    if found.against:
        return ""
    template = f" --template {model.chat_template}" if model.chat_template else ""
    return f"bin/sweep --model {model.path} --pairs FILE --requests FILE{template}"
