"""The places of a model where interventions act: hooks on vLLM's modules that hand a pass's vectors to the operator.

A site of a request is a word; here each word is a list of places, one operator each. Hooks stand before vLLM compiles the
model, so that they are a part of what is compiled and captured.
"""
# T = tokens, H = hidden size, N = places

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from editing.families.base import EMBEDDING as TABLE
from editing.families.base import POSITION
from editing.plan import PROJECTIONS, EditPlan
from engine.errors import EngineError
from engine.runtime.interventions import Interventions
from engine.runtime.requests import BLOCK, EMBEDDING, INPUTS, WRITES
from engine.vllm_compat.runtime import decoder_blocks, entering, writer

EXPERTS = ".experts"


@dataclass
class Place:
    """One operator: the word of its site, the module it is hooked to, and an output bias that it leaves as it is."""

    site: str
    module: nn.Module
    bias_H: Tensor | None = None


def places_of(model: nn.Module, sites: tuple[str, ...], num_blocks: int, plan: Callable[[], EditPlan]) -> list[Place]:
    """The places of the named sites.

    plan: called for writes and embedding, which are found by the checkpoint's tensors; inputs need none, quantised or not.
    Raises EngineError for a site that is not known for this model.
    """
    find: dict[str, Callable[[], list[Place]]] = {
        INPUTS: lambda: [Place(INPUTS, block) for block in decoder_blocks(model, num_blocks)],
        WRITES: lambda: write_places(model, plan()),
        EMBEDDING: lambda: [
            Place(EMBEDDING, writer(model, tensor.name)) for tensor in plan().writers if tensor.role in (TABLE, POSITION)
        ],
    }
    if unknown := [site for site in sites if site not in find]:
        raise EngineError(f"Sites of an engine are {', '.join(find)}; found '{unknown[0]}'.")
    return [place for site in sites for place in find[site]()]


def write_places(model: nn.Module, plan: EditPlan) -> list[Place]:
    """What attention and MLP add to the stream: behind a norm its output; of experts the whole block's sum."""
    names = [tensor.gain or tensor.name for tensor in plan.writers if tensor.role in PROJECTIONS]
    blocks = {name.partition(EXPERTS)[0] for name in names if EXPERTS in name}
    places: dict[int, Place] = {}
    for name in names:
        block = next((block for block in blocks if name.startswith(f"{block}.")), None)
        module = writer(model, name if block is None else f"{block}.weight")
        bias = None if block is not None or plan.scope.biases else getattr(module, "bias", None)
        places.setdefault(id(module), Place(WRITES, module, bias))
    return list(places.values())


def hook(places: list[Place], tables: Interventions) -> list[Any]:
    """Stand the operator at every place; `tables` has a site for each, in this order. Returns the hooks' handles."""
    handles = []
    for site, place in enumerate(places):
        if place.site == INPUTS:
            before = _before(tables, site, place.module)
            handles.append(place.module.register_forward_pre_hook(before, with_kwargs=True))
        else:
            handles.append(place.module.register_forward_hook(_behind(tables, site)))
    return handles


def chosen(places: list[Place], asked: str) -> list[bool]:
    """Which places a request's site names: words joined by "+", among them block:N."""
    words = asked.split("+")
    inputs = iter(range(len(places)))
    blocks = [f"{BLOCK}{next(inputs)}" if place.site == INPUTS else "" for place in places]
    return [place.site in words or (block != "" and block in words) for place, block in zip(places, blocks, strict=True)]


def _before(tables: Interventions, site: int, block: Any) -> Any:
    stream, added = entering(block)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[stream] if len(args) > stream else kwargs["hidden_states"]
        residual = None
        if added is not None:
            residual = args[added] if len(args) > added else kwargs.get("residual")
        _apply(tables, site, hidden, residual)

    return before


def _behind(tables: Interventions, site: int) -> Any:
    def behind(module: nn.Module, args: Any, output: Any) -> None:
        _apply(tables, site, output[0] if isinstance(output, tuple) else output, None)

    return behind


def _apply(tables: Interventions, site: int, hidden: Tensor, residual: Tensor | None) -> None:
    """In place, whether the tokens are a list or, in transformers' code, a batch of one."""
    if hidden.dim() != 2 and (hidden.dim() != 3 or hidden.shape[0] != 1):
        raise EngineError(f"A site's vectors have shape {tuple(hidden.shape)}; expected one vector a token.")
    width = hidden.shape[-1]
    tables.act(hidden.view(-1, width), site, None if residual is None else residual.view(-1, width))
