"""Which layouts of experts vLLM may have that a hot swap refuses, each with its reason; on vLLM's own method and enum."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from engine.environment import set_environment
from engine.errors import EngineError
from engine.vllm_compat.layers import held_experts, module_of, routed_experts, row_parallel

pytestmark = pytest.mark.engine


def layer_of(backend: str, expert_map: torch.Tensor | None = None, kernel: Any = None, **changes: Any) -> nn.Module:
    """A layer of experts that vLLM's unquantized method runs by a backend; `changes` are of its two configurations."""
    set_environment()
    from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

    method = object.__new__(UnquantizedFusedMoEMethod)
    method.__dict__ |= {"_modules": {}, "unquantized_backend": UnquantizedMoeBackend[backend], "moe_kernel": kernel}
    parallel = {"enable_eplb": False, "use_all2all_kernels": False, "dp_size": 1, "pcp_size": 1, "tp_rank": 0, "tp_size": 1}
    config = {"is_lora_enabled": False, "tp_shard_with_padding": False}
    layer = nn.Module()
    layer.__dict__ |= {
        "quant_method": method,
        "expert_map": expert_map,
        "moe_config": SimpleNamespace(
            **{name: changes.get(name, value) for name, value in config.items()},
            moe_parallel_config=SimpleNamespace(**{name: changes.get(name, value) for name, value in parallel.items()}),
        ),
    }
    return layer


def kernel_of(*, is_monolithic: bool = False, **experts: Any) -> SimpleNamespace:
    return SimpleNamespace(is_monolithic=is_monolithic, fused_experts=SimpleNamespace(**experts))


def model_of(layer: nn.Module) -> nn.Module:
    """A model with the layer where vLLM's runner has it."""
    runner, block, model = nn.Module(), nn.Module(), nn.Module()
    runner.add_module("routed_experts", layer)
    block.add_module("experts", runner)
    model.add_module("mlp", block)
    return model


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda: layer_of("TRITON", kernel=kernel_of()), id="Triton"),
        pytest.param(lambda: layer_of("FLASHINFER_CUTLASS", kernel=kernel_of()), id="FlashInfer CUTLASS"),
        pytest.param(lambda: layer_of("TRITON", torch.tensor([-1, 0]), kernel_of()), id="expert parallel"),
        pytest.param(lambda: layer_of("CPU", kernel=kernel_of(isa="vec", _use_zentorch=False)), id="CPU"),
    ],
)
def test_what_is_known_is_taken(layer: Any) -> None:
    made = layer()
    assert routed_experts(model_of(made), "mlp.experts") is made


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            lambda: layer_of("FLASHINFER_TRTLLM", kernel=kernel_of()),
            "backend FlashInfer TRTLLM keeps them in an order of",
        ),
        (lambda: layer_of("AITER", kernel=kernel_of()), "backend ROCm AITER keeps them in an order of its own"),
        (lambda: layer_of("XPU", kernel=kernel_of()), "backend XPU keeps them in an order of its own"),
        (lambda: layer_of("TRITON", kernel=kernel_of(is_monolithic=True)), "backend TRITON routes them itself"),
        (lambda: layer_of("TRITON", kernel=kernel_of(), enable_eplb=True), "vLLM moves them between ranks"),
        (lambda: layer_of("TRITON", kernel=kernel_of(), use_all2all_kernels=True), "vLLM moves them between ranks"),
        (lambda: layer_of("TRITON", kernel=kernel_of(), dp_size=2), "vLLM moves them between ranks"),
        (lambda: layer_of("TRITON", kernel=kernel_of(), is_lora_enabled=True), "runs them with LoRA"),
        (lambda: layer_of("CPU"), "this vLLM's CPU kernel packs them in a way that is not known"),
        (lambda: layer_of("CPU", kernel=kernel_of(isa="vec", _use_zentorch=True)), "packs them in a way that is not known"),
        (
            lambda: layer_of("CPU", torch.tensor([-1, 0]), kernel_of(isa="vec", _use_zentorch=False)),
            "CPU kernel takes no expert parallelism",
        ),
    ],
)
def test_what_is_not_known_is_refused_with_its_reason(layer: Any, reason: str) -> None:
    with pytest.raises(EngineError, match=f"mlp.experts is not swapped in this engine: .*{reason}.*bin/edit"):
        routed_experts(model_of(layer()), "mlp.experts")


def test_quantised_experts_are_refused() -> None:
    layer = layer_of("TRITON", kernel=kernel_of())
    layer.__dict__["quant_method"] = SimpleNamespace()
    with pytest.raises(EngineError, match="run by SimpleNamespace, not by UnquantizedFusedMoEMethod"):
        routed_experts(model_of(layer), "mlp.experts")


def test_a_ranks_experts_are_named_in_the_order_in_which_it_holds_them() -> None:
    layer = SimpleNamespace(expert_map=torch.tensor([-1, 1, -1, 0]), w2_weight=torch.zeros(2, 3, 4))
    assert held_experts(layer, 4) == [3, 1]


def test_a_module_is_found_under_the_models_own_name() -> None:
    model = model_of(nn.Module())
    model.__dict__["hf_to_vllm_mapper"] = SimpleNamespace(apply_list=lambda names: [name.replace("ffn", "mlp") for name in names])
    assert module_of(model, "ffn.experts.weight") is model.get_submodule("mlp.experts")


def test_a_tensor_without_a_module_is_refused() -> None:
    with pytest.raises(EngineError, match=r"vLLM's Module has no module mlp\.down_proj"):
        module_of(model_of(nn.Module()), "mlp.down_proj.weight")


def test_a_layer_of_another_kind_is_refused() -> None:
    model = nn.Module()
    model.add_module("o_proj", nn.Linear(2, 3))
    with pytest.raises(EngineError, match=r"o_proj\.weight is in a Linear; a hot swap takes RowParallelLinear"):
        row_parallel(model, "o_proj.weight")
