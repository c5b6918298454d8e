"""The hot swap inside vLLM's workers: a `worker_extension_cls` whose methods `collective_rpc` calls by name.

Arguments are plain (paths, numbers), so no pickling switch is needed.
"""

from pathlib import Path
from typing import Any

from editing.checkpoint import open_checkpoint
from editing.plan import plan_edit
from engine.hotswap import HotSwap


class HotSwapWorker:
    """Methods added to vLLM's worker class."""

    hotswap: HotSwap
    get_model: Any  # vLLM's Worker

    def hotswap_open(self, base_dir: str) -> int:
        """Prepare swaps from the base checkpoint; returns the number of layers that a swap exchanges."""
        from vllm.platforms import current_platform

        checkpoint = open_checkpoint(Path(base_dir))
        on_cpu = bool(current_platform.is_cpu())
        self.hotswap = HotSwap(self.get_model(), checkpoint, plan_edit(checkpoint), repacks=on_cpu)
        return len(self.hotswap.sites)

    def hotswap_apply(self, basis_file: str | None, alphas: dict[str, float], keep_norms: bool) -> float:
        """Swap to the variant whose basis is `basis` in a safetensors file, or to the base; returns the probe's error."""
        from safetensors.torch import load_file

        edits = self.hotswap.edits(load_file(basis_file)["basis"], alphas, keep_norms=keep_norms) if basis_file else {}
        return self.hotswap.swap(edits)
