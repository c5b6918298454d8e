"""The operator's Triton kernel: one program a token, which holds the token's vector in registers and reads it once.

Sums are float32 in a fixed order, so a token's result does not depend on what else is in the batch. A token whose slot does
nothing at the site ends after two loads. Imported on CUDA alone.
"""
# T = tokens, H = hidden size, S = slots, N = sites, K = rows of a slot at most; M = N, or 1 where sites share rows

import triton
import triton.language as tl
from torch import Tensor

NUMBERS_PER_WARP = 512  # 16 numbers a thread
MOST_WARPS = 16


@triton.jit(do_not_specialize=["site", "num_sites", "max_rank"])  # one compiled kernel for all sites
def _intervene(  # type: ignore[no-untyped-def]  # Triton reads annotations as types of its own
    hidden,
    residual,
    rows,
    shares,
    offsets,
    ranks,
    slots,
    site,
    num_sites,
    hidden_stride,
    residual_stride,
    slot_stride,
    site_stride,
    max_rank,
    hidden_size,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    cell = slot * num_sites + site
    rank = tl.load(ranks + cell)
    if rank > 0:
        columns = tl.arange(0, BLOCK)
        inside = columns < hidden_size
        place = hidden + token * hidden_stride + columns
        changed = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        stream = changed
        if HAS_RESIDUAL:
            stream += tl.load(residual + token * residual_stride + columns, mask=inside, other=0.0).to(tl.float32)
        base = rows + slot * slot_stride + site * site_stride + columns
        for k in range(rank):
            row = tl.load(base + k * hidden_size, mask=inside, other=0.0)
            share = tl.load(shares + cell * max_rank + k)
            offset = tl.load(offsets + cell * max_rank + k)
            changed += (offset - share * tl.sum(stream * row)) * row
        tl.store(place, changed.to(hidden.dtype.element_ty), mask=inside)


def launch(
    hidden_TH: Tensor,
    residual_TH: Tensor | None,
    rows_SMKH: Tensor,
    shares_SNK: Tensor,
    offsets_SNK: Tensor,
    ranks_SN: Tensor,
    slots_T: Tensor,
    site: int,
) -> None:
    """Run the operator on the current stream. Rows, shares and offsets are contiguous float32, ranks and slots int32."""
    num_tokens, hidden_size = hidden_TH.shape
    if num_tokens == 0:
        return
    block = triton.next_power_of_2(hidden_size)
    _intervene[(num_tokens,)](
        hidden_TH,
        hidden_TH if residual_TH is None else residual_TH,
        rows_SMKH,
        shares_SNK,
        offsets_SNK,
        ranks_SN,
        slots_T,
        site,
        ranks_SN.shape[1],
        hidden_TH.stride(0),
        hidden_TH.stride(0) if residual_TH is None else residual_TH.stride(0),
        rows_SMKH.stride(0),
        rows_SMKH.stride(1) if rows_SMKH.shape[1] > 1 else 0,
        shares_SNK.shape[2],
        hidden_size,
        HAS_RESIDUAL=residual_TH is not None,
        BLOCK=block,
        num_warps=min(MOST_WARPS, max(1, block // NUMBERS_PER_WARP)),
    )
