"""vLLM's layers inside a worker: which of them hold a checkpoint's tensor plainly, and how it is exchanged and tried.

Linear layers and embeddings as in vLLM 0.26 to 0.33. Experts on a GPU as in 0.24 and 0.32; on a CPU as in 0.32, older kernels
being of another form. What is not known is refused by name. vLLM is imported inside the functions.
"""
# H = hidden size, I = this rank's share of a projection's input size, N = rows, P = probe vectors

from typing import Any

from engine.errors import EngineError

PLAIN_BACKENDS = {"TRITON", "FLASHINFER_CUTLASS"}  # these keep down projections as (experts, H, I); CUTLASS turns w13 alone
USE_EDIT = "Write the variant with bin/edit."


def module_of(model: Any, tensor: str) -> Any:
    """The module that holds a checkpoint's tensor, under the model's own names. Raises EngineError where there is none."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    renamed = [tensor] if mapper is None else mapper.apply_list([tensor])
    name = "".join(renamed).rpartition(".")[0]
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise EngineError(f"vLLM's {type(model).__name__} has no module {name}, so it cannot be swapped. Use bin/edit.") from None


# --- linear layers ------------------------------------------------------------------------------------------------------


def row_parallel(model: Any, tensor: str) -> Any:
    """The linear layer of a weight or bias. Raises EngineError for one whose weight cannot be exchanged as it is."""
    from vllm.model_executor.layers.linear import ReplicatedLinear, RowParallelLinear, UnquantizedLinearMethod

    module = module_of(model, tensor)
    whole = type(module) is ReplicatedLinear and tensor.endswith(".weight")  # a bias of it would be added by every rank
    if type(module) is not RowParallelLinear and not whole:
        raise EngineError(
            f"{tensor} is in a {type(module).__name__}; a hot swap takes RowParallelLinear (no LoRA, no pipeline parallelism)."
        )
    if type(module.quant_method) is not UnquantizedLinearMethod:
        raise EngineError(f"{tensor} is quantised ({type(module.quant_method).__name__}); a hot swap takes unquantised weights.")
    return module


def columns_of(module: Any) -> slice:
    """The columns of the whole (H, I) matrix that this rank holds: all of a layer that every rank has."""
    from vllm.model_executor.layers.linear import ReplicatedLinear

    if type(module) is ReplicatedLinear:
        return slice(0, module.input_size)
    width = module.input_size_per_partition
    return slice(module.tp_rank * width, (module.tp_rank + 1) * width)


def exchange_weight(module: Any, weight_HI: Any, *, repacks: bool) -> None:
    """Put a weight of the engine's type into a layer; `repacks` where vLLM keeps a packed copy, as it does on the CPU."""
    from torch import nn

    if repacks:
        # The packed copy was made at load: writing into the parameter would change nothing and say nothing.
        module.weight = nn.Parameter(weight_HI.contiguous(), requires_grad=False)
        module.quant_method.process_weights_after_loading(module)
    else:
        module.weight.data.copy_(weight_HI)  # in place: CUDA graphs hold the parameter's address


def exchange_bias(module: Any, bias_H: Any) -> None:
    """Put a bias into a linear layer. Every rank holds it and rank 0 adds it, from the parameter, with each call."""
    module.bias.data.copy_(bias_H)


def layer_output(module: Any, input_PI: Any, *, with_bias: bool = False) -> Any:
    """A layer's output for inputs, by the kernel that generation uses; (P, H) of the engine's type, without ranks' sum."""
    return module.quant_method.apply(module, input_PI, module.bias if with_bias else None)


# --- embeddings ---------------------------------------------------------------------------------------------------------


def embedding(model: Any, tensor: str) -> Any:
    """The embedding of a table. Raises EngineError for one that is quantised, or of another kind."""
    from torch import nn
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

    module = module_of(model, tensor)
    by_rank = type(module) is VocabParallelEmbedding and type(module.quant_method) is UnquantizedEmbeddingMethod
    if not by_rank and type(module) is not nn.Embedding:
        raise EngineError(f"{tensor} is in a {type(module).__name__}, which a hot swap does not know. {USE_EDIT}")
    return module


def rows_of(module: Any) -> slice:
    """The rows of the whole table that this rank holds; behind them its own rows may be padding."""
    indices = getattr(module, "shard_indices", None)
    if indices is None:
        return slice(0, module.num_embeddings)
    return slice(indices.org_vocab_start_index, indices.org_vocab_end_index)


def head_of(model: Any, module: Any, tensor: str, *, ties_head: bool) -> Any:
    """The output head that is this embedding, None where the head is a tensor of its own.

    Raises EngineError where engine and checkpoint differ: vLLM ties a head that equals the embedding.
    """
    heads = [one for name, one in model.named_modules() if name.rpartition(".")[2] == "lm_head"]  # a text tower's is deeper
    head = heads[0] if heads else module
    shared = head.weight.data_ptr() == module.weight.data_ptr()
    if shared != ties_head:
        ours, its = ("one tensor", "two") if shared else ("two tensors", "one")
        raise EngineError(f"vLLM holds {tensor} and the output head as {ours}, the checkpoint as {its}. {USE_EDIT}")
    return head if ties_head else None


def exchange_rows(module: Any, rows_NH: Any) -> None:
    """Put this rank's rows into an embedding; a head that shares its weight needs `repack_head` then."""
    module.weight.data[: len(rows_NH)].copy_(rows_NH)


def repack_head(head: Any, *, repacks: bool) -> None:
    """Have an output head multiply with its weight as it is now; `repacks` as for `exchange_weight`."""
    if repacks:
        head.quant_method.process_weights_after_loading(head)


def looked_up(module: Any, rows_N: Any) -> Any:
    """The embedding's output for rows of this rank, counted from its first; (N, H)."""
    method = getattr(module, "quant_method", None)
    return module(rows_N) if method is None else method.embedding(module, rows_N)


# --- experts ------------------------------------------------------------------------------------------------------------


def routed_experts(model: Any, block: str) -> Any:
    """The routed experts of a block, by the checkpoint's name of the block. Raises EngineError, with the reason, where vLLM
    holds them in a way that a hot swap does not know."""
    module = module_of(model, f"{block}.weight")
    layer = getattr(module, "routed_experts", module)
    if reason := _unknown_layout(layer):
        raise EngineError(f"{block} is not swapped in this engine: {reason}. {USE_EDIT}")
    return layer


def _unknown_layout(layer: Any) -> str:
    """Why a layer's experts are not exchanged; "" where they are."""
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    method: Any = getattr(layer, "quant_method", None)
    if type(method) is not UnquantizedFusedMoEMethod:
        return f"its {type(layer).__name__} is run by {type(method).__name__}, not by UnquantizedFusedMoEMethod"
    backend, parallel = method.unquantized_backend, layer.moe_config.moe_parallel_config
    if layer.moe_config.is_lora_enabled or getattr(layer.moe_config, "tp_shard_with_padding", False):
        return "vLLM pads them, or runs them with LoRA"
    if parallel.enable_eplb or parallel.use_all2all_kernels or parallel.dp_size * parallel.pcp_size > 1:
        return "vLLM moves them between ranks (data or sequence parallelism, or its load balancer)"
    if backend.name == "CPU":
        return _unknown_on_cpu(layer, method)
    if backend.name not in PLAIN_BACKENDS:
        return f"vLLM's backend {backend.value} keeps them in an order of its own; vllm.moe_backend = 'triton' does not"
    return "" if not method.is_monolithic else f"vLLM's backend {backend.value} routes them itself"


def _unknown_on_cpu(layer: Any, method: Any) -> str:
    kernel = getattr(method.moe_kernel, "fused_experts", None)
    if not hasattr(kernel, "isa") or getattr(kernel, "_use_zentorch", False):
        return "this vLLM's CPU kernel packs them in a way that is not known (known: vLLM 0.32's own kernels)"
    return "vLLM's CPU kernel takes no expert parallelism" if layer.expert_map is not None else ""


def held_experts(layer: Any, total: int) -> list[int]:
    """The checkpoint's numbers of the experts that this rank holds, in the order in which it holds them.

    total: the checkpoint's experts. Raises EngineError where the layer holds another number than its map says.
    """
    places = range(total) if layer.expert_map is None else layer.expert_map.tolist()
    by_place = {place: number for number, place in enumerate(places) if place >= 0}
    if len(by_place) != len(layer.w2_weight):
        raise EngineError(f"vLLM holds {len(layer.w2_weight)} experts where {len(by_place)} are expected. {USE_EDIT}")
    return [by_place[place] for place in sorted(by_place)]


def columns_of_experts(layer: Any, width: int) -> slice:
    """The columns of an expert's whole (H, width) matrix that this rank holds."""
    parallel = layer.moe_config.moe_parallel_config
    share, rest = divmod(width, parallel.tp_size)
    if rest or share > layer.w2_weight.shape[2]:
        raise EngineError(f"Experts of width {width} are not split evenly over {parallel.tp_size} ranks. {USE_EDIT}")
    return slice(parallel.tp_rank * share, (parallel.tp_rank + 1) * share)


def exchange_expert(layer: Any, place: int, weight_HI: Any, *, repacks: bool) -> None:
    """Put a down projection into its place in the layer; `repacks` as for `exchange_weight`."""
    held_HI = layer.w2_weight.data[place]
    if not repacks:
        held_HI[:, : weight_HI.shape[1]].copy_(weight_HI)  # what is behind is padding
        return
    from vllm._custom_ops import cpu_prepack_moe_weight

    padded_1HI = weight_HI.new_zeros(1, *held_HI.shape)
    padded_1HI[0, :, : weight_HI.shape[1]] = weight_HI
    held_HI.copy_(cpu_prepack_moe_weight(padded_1HI, layer.quant_method.moe_kernel.fused_experts.isa)[0])


def expert_output(layer: Any, input_PH: Any, expert: int) -> Any:
    """One expert's output for inputs of the block, by the kernel that generation uses; (P, H), without ranks' sum."""
    import torch

    method, device = layer.quant_method, input_PH.device
    chosen_P1 = torch.full((len(input_PH), 1), expert, dtype=method.topk_indices_dtype or torch.int32, device=device)
    shares_P1 = torch.ones(len(input_PH), 1, device=device)
    return method.apply(
        layer=layer,
        x=input_PH.clone(),
        topk_weights=shares_P1,
        topk_ids=chosen_P1,
        shared_experts=None,
        shared_experts_input=None,
    )


def expert_biases(layer: Any) -> Any:
    """The output biases that the kernel adds, (experts of this rank, H); None where there are none."""
    bias = getattr(layer, "w2_bias", None)
    return None if bias is None else bias.data


def adds_expert_biases(layer: Any) -> bool:
    """Whether this rank adds them: where ranks share an expert the first alone does, and the others hold zeros."""
    return bool(layer.moe_config.moe_parallel_config.tp_rank == 0)
