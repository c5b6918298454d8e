"""Forward hooks that read the residual stream of a transformers model at chosen token positions.

Layer l = 0..L-1 is what enters block l; layer L is what leaves the last block. transformers' `hidden_states[-1]` comes
after the final norm, so layer L is hooked here and never read from there.
"""
# L = decoder blocks, B = sequences of a batch, P = positions, H = hidden size, T = tokens

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from extraction.errors import ExtractionError

BLOCK_LISTS = ("layers", "h", "blocks")  # Llama and most others, GPT-2, MPT


def decoder_body(model: nn.Module) -> Any:
    """A causal language model's decoder, without `lm_head`."""
    body = getattr(model, "base_model", model)
    return getattr(model, "model", model) if body is model else body  # some classes name another body than they have


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """A model's decoder blocks, first to last.

    Raises ExtractionError for a model whose blocks are not where they are known to be.
    """
    body = decoder_body(model)
    expected = getattr(body.config, "num_hidden_layers", None)
    for name in BLOCK_LISTS:
        blocks = getattr(body, name, None)
        if isinstance(blocks, nn.ModuleList) and len(blocks) == expected:
            return blocks
    raise ExtractionError(
        f"Model type '{body.config.model_type}': found no list of {expected} decoder blocks among {', '.join(BLOCK_LISTS)} "
        f"of {type(body).__name__}. Name its list in extraction/hooks.py."
    )


def length_switch(model: nn.Module) -> int | None:
    """Tokens of a prompt beyond which a model's rotary frequencies depend on its length; None where they never do."""
    config = decoder_body(model).config
    scaling = getattr(config, "rope_parameters", None) or {}
    kinds = [scaling, *(inner for inner in scaling.values() if isinstance(inner, dict))]  # one of all blocks, or by their type
    found = [kind for kind in kinds if "dynamic" in str(kind.get("rope_type")) or kind.get("rope_type") == "longrope"]
    window = config.max_position_embeddings
    return min((kind.get("original_max_position_embeddings") or window for kind in found), default=None)


def keeps_states(model: nn.Module) -> bool:
    """Whether some blocks carry a state from token to token, as linear attention and convolutions do.

    Such a state cannot be given to several prompts as a prefix's keys and values can.
    """
    kinds = getattr(decoder_body(model).config, "layer_types", None) or ()
    return any("attention" not in kind or kind == "linear_attention" for kind in kinds)


@contextmanager
def truncated(model: nn.Module, last_layer: int) -> Iterator[None]:
    """Leave out the blocks from `last_layer` on while active, so that a pass ends where that layer's stream is known.

    The model's layer L is then `last_layer`. Raises ExtractionError where that leaves no block.
    """
    blocks, body = decoder_blocks(model), decoder_body(model)
    if not 1 <= last_layer <= len(blocks):
        raise ExtractionError(f"A pass can end at layers 1 to {len(blocks)}; found {last_layer}.")
    name = next(name for name in BLOCK_LISTS if getattr(body, name, None) is blocks)
    setattr(body, name, blocks[:last_layer])
    body.config.num_hidden_layers = last_layer
    try:
        yield
    finally:
        setattr(body, name, blocks)
        body.config.num_hidden_layers = len(blocks)


class ResidualCapture:
    """Context manager that reads the residual stream of a forward pass at chosen tokens.

        with ResidualCapture(model) as capture:
            capture.at(index_BP)      # places of the wanted tokens in each sequence of the batch
            body(input_ids=ids_BT)
            capture.read()            # (L+1, B, P, H), the model's dtype

    Only the wanted tokens' vectors leave the pass. A pass with no places named, such as a shared prefix's, is not looked at.
    """

    def __init__(self, model: nn.Module) -> None:
        self.blocks = decoder_blocks(model)
        self._index_BP: Tensor | None = None
        self._reduce: Callable[[Tensor], Tensor] | None = None
        self._captured: dict[int, Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "ResidualCapture":
        for layer, block in enumerate(self.blocks):
            self._handles.append(block.register_forward_pre_hook(self._before(layer), with_kwargs=True))
        self._handles.append(self.blocks[-1].register_forward_hook(self._after_last))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def at(self, index_BP: Tensor, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """Name the wanted tokens of the next pass.

        reduce: makes what is kept of each layer's (B, P, H), such as a mean; None keeps it as it is.
        """
        self._index_BP, self._reduce = index_BP, reduce

    def read(self) -> Tensor:
        """Residual stream of the pass just made, (L+1, B, P, H). Raises ExtractionError where a layer was not reached."""
        if len(self._captured) != len(self.blocks) + 1:
            raise ExtractionError(f"{len(self._captured)} of {len(self.blocks) + 1} layers were reached by the forward pass.")
        resid_LBPH = torch.stack([self._captured[layer] for layer in range(len(self.blocks) + 1)])
        self._captured.clear()
        return resid_LBPH

    def _before(self, layer: int) -> Any:
        def hook(block: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
            self._keep(layer, args[0] if args else kwargs["hidden_states"])

        return hook

    def _after_last(self, block: nn.Module, args: Any, output: Any) -> None:
        self._keep(len(self.blocks), output[0] if isinstance(output, tuple) else output)

    def _keep(self, layer: int, hidden_states_BTH: Tensor) -> None:
        if self._index_BP is None:
            return
        if len(hidden_states_BTH) != len(self._index_BP):
            raise ExtractionError(
                f"Places were named for {len(self._index_BP)} sequences; the pass has {len(hidden_states_BTH)}."
            )
        # A model may be split over devices: the places go to the layer's, the few wanted vectors come back to theirs.
        index_BP = self._index_BP.to(hidden_states_BTH.device)
        rows_B1 = torch.arange(len(hidden_states_BTH), device=hidden_states_BTH.device)[:, None]
        chosen_BPH = hidden_states_BTH[rows_B1, index_BP].detach().to(self._index_BP.device)
        self._captured[layer] = chosen_BPH if self._reduce is None else self._reduce(chosen_BPH)
