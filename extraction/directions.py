"""Difference-in-means directions: mean residual stream of declined minus answered requests, one vector per layer.

The estimator of Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction", at the last token
of the rendered prompt. Takes a model and token ids; knows nothing of files.
"""
# L = decoder blocks, H = hidden size, T = tokens, N = prompts

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from extraction.errors import ExtractionError
from extraction.hooks import ResidualCapture, decoder_body
from extraction.rendering import RenderedPair

CONVENTION = "resid_pre"
POSITION = "last"


@dataclass(frozen=True)
class Directions:
    """Mean residual streams, float64, (L+1, H); row l is the stream that enters block l, row L what leaves the last."""

    declined_mean_LH: Tensor
    answered_mean_LH: Tensor
    num_pairs: int

    @property
    def mean_difference_LH(self) -> Tensor:
        """Declined minus answered, not normalised."""
        return self.declined_mean_LH - self.answered_mean_LH

    @property
    def norms_L(self) -> Tensor:
        """Euclidean norm of each layer's direction."""
        return self.mean_difference_LH.norm(dim=-1)


def extract_directions(
    model: nn.Module, pairs: Sequence[RenderedPair], on_prompt: Callable[[int], None] = lambda done: None
) -> Directions:
    """Directions of every layer from rendered pairs, one prompt at a time.

    `on_prompt` is told how many of the 2 N prompts are done. Memory does not grow with the number of pairs.
    """
    if not pairs:
        raise ExtractionError("No pairs to extract from; expected at least one.")
    declined = mean_residual(model, (pair.declined for pair in pairs), on_prompt)
    answered = mean_residual(model, (pair.answered for pair in pairs), lambda done: on_prompt(len(pairs) + done))
    return Directions(declined, answered, len(pairs))


def mean_residual(
    model: nn.Module, prompts: Iterable[Sequence[int]], on_prompt: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Mean over prompts of the last token's residual stream, summed in float64: (L+1, H)."""
    total_LH: Tensor | None = None
    count = 0
    body = decoder_body(model)
    device = next(model.parameters()).device
    with torch.inference_mode(), ResidualCapture(model) as capture:
        for count, token_ids in enumerate(prompts, 1):
            body(input_ids=torch.tensor([token_ids], device=device), use_cache=False)
            resid_LH = capture.read().to("cpu", torch.float64)
            total_LH = resid_LH if total_LH is None else total_LH.add_(resid_LH)
            on_prompt(count)
    if total_LH is None:
        raise ExtractionError("No prompts to average; expected at least one.")
    return total_LH / count


def unit_directions(directions: Directions, layers: Sequence[int]) -> Tensor:
    """The named layers' directions at unit length, (len(layers), H) float64.

    Raises ExtractionError for a layer outside 0..L, one named twice, or one whose direction is zero or not finite (layer
    0 at the last token: that token is the same for every prompt).
    """
    last = directions.mean_difference_LH.shape[0] - 1
    for layer in layers:
        if not 0 <= layer <= last:
            raise ExtractionError(
                f"Layer {layer} is out of range: the model has layers 0 to {last} (resid_pre; {last} is its output)."
            )
        if layers.count(layer) > 1:
            raise ExtractionError(f"Layer {layer} is named more than once.")
    chosen = directions.mean_difference_LH[list(layers)]
    norms = directions.norms_L[list(layers)]
    scale = directions.answered_mean_LH[list(layers)].norm(dim=-1)
    for layer, norm, size in zip(layers, norms.tolist(), scale.tolist(), strict=True):
        if not norm > 1e-9 * size:
            raise ExtractionError(
                f"Layer {layer} has no direction: the declined and answered means differ by {norm:g}. "
                "At layer 0 the last token is the same for every prompt; choose a later layer."
            )
    return chosen / norms[:, None]
