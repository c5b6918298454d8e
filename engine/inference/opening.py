"""Finds the engine's place of every tensor of a plan, or says which one a hot swap does not know.

One kind of site a layout: linear layers, routed experts, embeddings (with a tied head), biases. A tensor may have no place on
a rank: an expert of another rank, a bias that the first rank adds.
"""

from torch import nn

from editing.checkpoint import Checkpoint
from editing.families.base import BIAS, EMBEDDING, POSITION
from editing.plan import EditPlan, PlannedTensor
from engine.errors import EngineError
from engine.inference.embeddings import EmbeddingSite, HeadSite
from engine.inference.experts import ExpertBiasSite, ExpertLayer, ExpertsName, ExpertsSite, expert_layer, experts_name
from engine.inference.sites import BiasSite, LinearSite, Site
from engine.vllm_compat.layers import adds_expert_biases, embedding, head_of, routed_experts, row_parallel


def sites_of(model: nn.Module, checkpoint: Checkpoint, plan: EditPlan, *, repacks: bool) -> list[Site]:
    """The sites of a plan's tensors on this rank, in the plan's order.

    repacks: the engine keeps packed copies of weights, as it does on the CPU. Raises EngineError for a tensor whose place is
    not known, with the reason.
    """
    opening = Opening(model, checkpoint, plan, repacks=repacks)
    return [site for tensor in plan.edited for site in opening.sites(tensor)]


class Opening:
    """Makes the sites of one worker's model; see `sites_of`."""

    def __init__(self, model: nn.Module, checkpoint: Checkpoint, plan: EditPlan, *, repacks: bool) -> None:
        self.model, self.checkpoint, self.plan, self.repacks = model, checkpoint, plan, repacks
        self.device = next(model.parameters()).device
        self._layers: dict[str, ExpertLayer] = {}  # by block: its experts' tensors can be many

    def sites(self, tensor: PlannedTensor) -> list[Site]:
        """A tensor's sites on this rank."""
        if (name := experts_name(tensor.name)) is not None:
            return self._experts(tensor, self._layer(name), name)
        if tensor.role in (EMBEDDING, POSITION):
            return self._embedding(tensor)
        module, whole = row_parallel(self.model, tensor.name), self.checkpoint.read(tensor.name)
        self._check_bias(tensor.name.rpartition(".")[0] + ".bias", module)
        if tensor.role == BIAS:
            return [BiasSite(tensor, module, whole, self.device)]
        return [LinearSite(tensor, module, whole, self.device, repacks=self.repacks)]

    def _check_bias(self, bias: str, module: nn.Module) -> None:
        if bias in self.checkpoint.tensors and getattr(module, "bias", None) is None:
            raise EngineError(
                f"{bias} is in the checkpoint, and vLLM's {type(self.model).__name__} leaves it out: its responses would be "
                "another model's. Generate with transformers (bin/ablate), or without vLLM."
            )

    def _experts(self, tensor: PlannedTensor, layer: ExpertLayer, name: ExpertsName) -> list[Site]:
        if name.is_bias:
            adds = adds_expert_biases(layer.module)
            return [ExpertBiasSite(tensor, layer, self.checkpoint, self.device)] if adds else []
        if not layer.held_of(name):
            return []
        return [ExpertsSite(tensor, layer, self.checkpoint, self.device, repacks=self.repacks)]

    def _layer(self, name: ExpertsName) -> ExpertLayer:
        if name.block not in self._layers:
            module = routed_experts(self.model, name.block)
            self._layers[name.block] = expert_layer(module, self.checkpoint, name)
        return self._layers[name.block]

    def _embedding(self, tensor: PlannedTensor) -> list[Site]:
        module = embedding(self.model, tensor.name)
        site = EmbeddingSite(tensor, module, self.checkpoint.read(tensor.name), self.device)
        if tensor.role == POSITION:
            return [site]
        head = head_of(self.model, module, tensor.name, ties_head=self.plan.ties_head)
        return [site] if head is None else [site, HeadSite(site, head, repacks=self.repacks)]
