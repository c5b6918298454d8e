"""Which of vLLM's layers holds any tensor of a checkpoint, fused ones included, and the share of it that a rank holds.

As in vLLM 0.26 to 0.33. What is not known is refused by name. vLLM is imported inside the functions.
"""
# H = output rows, I = input size

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import EngineError

OWN_ENGINE = "It takes an engine of its own."
LINEAR, TABLE, HEAD, VECTOR = "linear", "table", "head", "vector"


@dataclass(frozen=True)
class Holder:
    """The layer that holds a tensor, alone or with others.

    name: the layer's own.
    parameter: weight or bias.
    parts: the checkpoint's tensors that the parameter is made of, in vLLM's order.
    kind: LINEAR, TABLE (an embedding), HEAD (an output head of its own) or VECTOR (a norm's gain, or the like).
    """

    name: str
    module: Any
    parameter: str
    parts: tuple[str, ...]
    kind: str


def holder_of(model: Any, tensor: str) -> Holder:
    """The layer of a checkpoint's tensor. Raises EngineError where there is none, or one of a kind that is not known."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    renamed = "".join([tensor] if mapper is None else mapper.apply_list([tensor]))
    path, _, parameter = renamed.rpartition(".")
    parent = path.rpartition(".")[0]
    last = tensor.rpartition(".")[0].rpartition(".")[2]  # the mapper may give the fused layer's name already
    for fused, parts in getattr(model, "packed_modules_mapping", {}).items():
        module = _submodule(model, f"{parent}.{fused}")
        if last in parts and len(parts) > 1 and module is not None:
            before = tensor.removesuffix(f"{last}.{parameter}")
            names = tuple(f"{before}{part}.{parameter}" for part in parts)
            return _checked(Holder(f"{parent}.{fused}", module, parameter, names, ""), tensor)
    module = _submodule(model, path)
    if module is None or getattr(module, parameter, None) is None:
        raise EngineError(f"vLLM's {type(model).__name__} has no {renamed}, so {tensor} cannot be exchanged. {OWN_ENGINE}")
    return _checked(Holder(path, module, parameter, (tensor,), ""), tensor)


def _submodule(model: Any, path: str) -> Any:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _checked(holder: Holder, tensor: str) -> Holder:
    """The holder with its kind. Raises EngineError for one that is quantised, or not known."""
    from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
        VocabParallelEmbedding,
    )

    module = holder.module
    method = type(getattr(module, "quant_method", None))
    if isinstance(module, LinearBase):
        kind = LINEAR if method is UnquantizedLinearMethod else ""
    elif isinstance(module, VocabParallelEmbedding):
        plain = method is UnquantizedEmbeddingMethod
        kind = (HEAD if isinstance(module, ParallelLMHead) else TABLE) if plain and holder.parameter == "weight" else ""
    else:
        held = getattr(module, holder.parameter)
        kind = VECTOR if held.dim() == 1 and method is type(None) else ""
    if not kind:
        raise EngineError(f"{tensor} is in a {type(module).__name__} ({method.__name__}), which is not exchanged. {OWN_ENGINE}")
    return Holder(holder.name, module, holder.parameter, holder.parts, kind)


def share_of(module: Any, parameter: str, parts: Sequence[Any]) -> Any:
    """This rank's part of a linear layer's parameter, from the whole tensors that it is made of, each (rows, ...)."""
    import torch
    from vllm.model_executor.layers.linear import (
        ColumnParallelLinear,
        MergedColumnParallelLinear,
        QKVParallelLinear,
        RowParallelLinear,
    )

    if isinstance(module, RowParallelLinear):
        width = module.input_size_per_partition
        return parts[0] if parameter == "bias" else parts[0][:, module.tp_rank * width : (module.tp_rank + 1) * width]
    if not isinstance(module, ColumnParallelLinear):
        return parts[0]
    if isinstance(module, QKVParallelLinear):
        sizes = [module.total_num_heads, module.total_num_kv_heads, module.total_num_kv_heads]
        sizes = [heads * size for heads, size in zip(sizes, _head_sizes(module), strict=True)]
        shard = module.tp_rank // module.num_kv_head_replicas
        counts = (module.num_heads, module.num_kv_heads, module.num_kv_heads)
        rows = [count * size for count, size in zip(counts, _head_sizes(module), strict=True)]
        starts = [module.tp_rank * rows[0], shard * rows[1], shard * rows[2]]
    else:
        sizes = list(module.output_sizes) if isinstance(module, MergedColumnParallelLinear) else [module.output_size]
        rows = [size // module.tp_size for size in sizes]
        starts = [module.tp_rank * size for size in rows]
    whole = parts[0].split(sizes) if len(parts) == 1 else parts
    if [len(part) for part in whole] != sizes:
        raise EngineError(f"vLLM's {type(module).__name__} holds {sizes} rows, the checkpoint {[len(part) for part in whole]}.")
    return torch.cat([part[start : start + size] for part, start, size in zip(whole, starts, rows, strict=True)])


def _head_sizes(module: Any) -> tuple[int, int, int]:
    return module.head_size, module.head_size, module.v_head_size
