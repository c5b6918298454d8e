"""Many prompts at once, exactly as one by one.

The common prefix is computed once. The rest comes in batches that are padded on the right, where causal attention never
looks. Takes a transformers model and token ids; the model's weights and hooks may change between two passes.
"""
# B = prompts of a batch, T = tokens after the prefix, V = vocabulary, S = slots

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from extraction.devices import input_device
from extraction.errors import ExtractionError
from extraction.hooks import keeps_states, length_switch

BATCH_TOKENS = 2048
SPREAD = 8  # lengths in one batch differ by fewer tokens than this: the head is computed for as many positions


@dataclass(frozen=True)
class Batch:
    """Prompts of similar length: their places, their tokens after the prefix, and where each one's last token is in the batch."""

    indices: list[int]
    token_ids_BT: Tensor
    last_B: Tensor


@dataclass(frozen=True)
class Logits:
    """Next-token logits (B, V) of the prompts at `indices`."""

    indices: list[int]
    logits_BV: Tensor


@dataclass(frozen=True)
class SlotLogits:
    """Next-token logits (S, B, V) of the prompts at `indices`, for each slot."""

    indices: list[int]
    logits_SBV: Tensor


class Prefill:
    """Prompts laid out for repeated passes. Raises ExtractionError where there are none or one is empty."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        device: Any = "cpu",
        batch_tokens: int = BATCH_TOKENS,
        *,
        keep: int = 1,
        switch: int | None = None,
    ) -> None:
        """Lay prompts out; `laid_out` does it for a model.

        keep: how many tokens at the end of each prompt are looked at, which the prefix leaves out.
        switch: tokens beyond which the rotary frequencies depend on a prompt's length. Longer prompts share no prefix, and a
        batch only with those of their own length.
        """
        if not prompts or not all(prompts):
            raise ExtractionError("No tokens to compute; expected at least one prompt, each with tokens.")
        self.num_prompts = len(prompts)
        beyond = {place for place, prompt in enumerate(prompts) if switch is not None and len(prompt) > switch}
        within = [prompt for place, prompt in enumerate(prompts) if place not in beyond]
        shared = common_prefix(within, keep) if within else 0
        self.prefix = list(within[0][:shared]) if within else []
        suffixes = [list(prompt[0 if place in beyond else shared :]) for place, prompt in enumerate(prompts)]
        lengths = {place: len(ids) for place, ids in enumerate(suffixes)}
        short = {place: length for place, length in lengths.items() if place not in beyond}
        long = {place: lengths[place] for place in beyond}
        self.batches = [_pad(group, suffixes, device) for group in _groups(short, batch_tokens)]
        self.alone = [_pad(group, suffixes, device) for group in _groups(long, batch_tokens, spread=1)]

    def passes(self, body: Any, before: Callable[[Batch], None]) -> Iterator[Batch]:
        """Run every batch through a decoder without its head, and yield each when its pass is done.

        before: called with each batch before its pass.
        """

        def told(batch: Batch) -> dict[str, Any]:
            before(batch)
            return {}

        for batch, _ in self._outputs(body, {}, told):
            yield batch

    def logits(self, model: Any) -> Iterator[Logits]:
        """Next-token logits, batch by batch, on the model's device and in its dtype."""
        for batch, output in self._outputs(model, {"logits_to_keep": 1}, lambda batch: _head_from(batch, batch.last_B)):
            first = int(batch.last_B.min())
            rows_B = torch.arange(len(batch.indices))
            yield Logits(batch.indices, output.logits[rows_B, (batch.last_B - first).to(output.logits.device)])

    def logits_beside(self, model: Any, slots: int) -> Iterator[SlotLogits]:
        """As `logits`, with every prompt once for each slot: the rows of a pass, the prefix's too, are slot after slot."""
        outputs = self._outputs(model, {"logits_to_keep": 1}, lambda batch: _head_from(batch, batch.last_B), slots)
        for batch, output in outputs:
            last_B = (batch.last_B - int(batch.last_B.min())).to(output.logits.device)
            rows_SBTV = output.logits.unflatten(0, (slots, len(batch.indices)))
            yield SlotLogits(batch.indices, rows_SBTV[:, torch.arange(len(batch.indices)), last_B])

    @property
    def largest(self) -> int:
        """Tokens of the largest pass, padding included."""
        passes = [batch.token_ids_BT.numel() for batch in (*self.batches, *self.alone)]
        return max([*passes, len(self.prefix)])

    def logits_of_last(self, model: Any, lengths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """For each prompt, its place and the logits that predict its last `lengths[place]` tokens, (length, V).

        `keep` of the constructor must be larger than every length: the token before them is looked at too.
        """

        def first_of(batch: Batch) -> Tensor:
            own_B = torch.tensor([lengths[index] for index in batch.indices], device=batch.last_B.device)
            return batch.last_B - own_B

        for batch, output in self._outputs(model, {"logits_to_keep": 1}, lambda batch: _head_from(batch, first_of(batch))):
            start_B = first_of(batch) - int(first_of(batch).min())
            for row, (index, start) in enumerate(zip(batch.indices, start_B.tolist(), strict=True)):
                yield index, output.logits[row, start : start + lengths[index]]

    @torch.inference_mode()
    def _outputs(
        self, model: Any, prefix_options: dict[str, Any], options: Callable[[Batch], dict[str, Any]], slots: int = 1
    ) -> Iterator[tuple[Batch, Any]]:
        """Every batch and what the model gives for it, `slots` times, behind the prefix's keys and values."""
        device = (self.batches or self.alone)[0].token_ids_BT.device
        cache = None
        if self.prefix:
            prefix_ST = torch.tensor([self.prefix] * slots, device=device)
            cache = model(input_ids=prefix_ST, use_cache=True, **prefix_options).past_key_values
        for batch in self.batches:
            repeated, chosen = _repeated(cache, len(batch.indices)), options(batch)
            tokens = batch.token_ids_BT.repeat(slots, 1)
            yield batch, model(input_ids=tokens, past_key_values=repeated, use_cache=repeated is not None, **chosen)
        for batch in self.alone:
            _forget_lengths(model)
            yield batch, model(input_ids=batch.token_ids_BT.repeat(slots, 1), use_cache=False, **options(batch))
        if self.alone:
            _forget_lengths(model)


def laid_out(model: Any, prompts: Sequence[Sequence[int]], batch_tokens: int = BATCH_TOKENS, *, keep: int = 1) -> Prefill:
    """Prompts laid out as this model computes them exactly: on its device, and without a prefix that it could not share."""
    keep = max(map(len, prompts), default=1) if keeps_states(model) else keep
    return Prefill(prompts, input_device(model), batch_tokens, keep=keep, switch=length_switch(model))


def common_prefix(prompts: Sequence[Sequence[int]], keep: int = 1) -> int:
    """Number of leading tokens that all prompts share, at least `keep` tokens of each left out."""
    longest = max(min(len(prompt) for prompt in prompts) - keep, 0)
    return next((n for n in range(longest) if len({prompt[n] for prompt in prompts}) > 1), longest)


def _groups(lengths: Mapping[int, int], batch_tokens: int, spread: int = SPREAD) -> Iterator[list[int]]:
    """Places of prompts by length, in groups of at most `batch_tokens` padded tokens.

    Lengths in one group differ by less than `spread`.
    """
    group: list[int] = []
    for place in sorted(lengths, key=lambda place: lengths[place]):
        too_many = (len(group) + 1) * lengths[place] > batch_tokens
        if group and (too_many or lengths[place] - lengths[group[0]] >= spread):
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _forget_lengths(model: Any) -> None:
    """Have dynamic rotary embeddings compute their frequencies anew: transformers keeps those of the longest pass so far."""
    for module in model.modules():
        if hasattr(module, "max_seq_len_cached") and hasattr(module, "original_max_seq_len"):
            module.max_seq_len_cached = module.original_max_seq_len
            if hasattr(module, "original_inv_freq"):
                module.register_buffer("inv_freq", module.original_inv_freq.to(module.inv_freq.device), persistent=False)


def _pad(group: list[int], suffixes: list[list[int]], device: Any) -> Batch:
    width = max(len(suffixes[index]) for index in group)
    padded = [suffixes[index] + [0] * (width - len(suffixes[index])) for index in group]
    last = [len(suffixes[index]) - 1 for index in group]
    return Batch(group, torch.tensor(padded, device=device), torch.tensor(last, device=device))


def _head_from(batch: Batch, first_B: Tensor) -> dict[str, Any]:
    """Options that compute the head from the first wanted token of the batch on."""
    return {"logits_to_keep": batch.token_ids_BT.shape[1] - int(first_B.min())}


def _repeated(prefix_cache: Any, size: int) -> Any:
    """A copy of the prefix's keys and values for each prompt of a batch; a copy, since a pass writes into it."""
    cache = copy.deepcopy(prefix_cache)
    if cache is not None:
        cache.batch_repeat_interleave(size)
    return cache
