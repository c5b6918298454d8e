"""The hot swap inside vLLM's workers: a `worker_extension_cls` whose methods `collective_rpc` calls by name.

Nothing is raised here. An exception that crosses to another process arrives there as a bare Exception, and leaves the other
ranks' answers in the queue, where the next call would read them. So every answer is a table of plain values: the variant's
hash with the figure, or with an error's kind and message. `engine.inference.answers.checked_answers` reads them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from editing.checkpoint import open_checkpoint
from editing.plan import Scope, plan_edit
from editing.replacement import values_of
from engine.inference.exchange import Exchange
from engine.inference.hotswap import HotSwap
from engine.vllm_compat import on_cpu

Answer = dict[str, Any]


class HotSwapWorker:
    """Methods added to vLLM's worker class."""

    hotswap: HotSwap
    exchange: Exchange | None = None
    get_model: Any  # vLLM's Worker

    def hotswap_open(self, base_dir: str, embeddings: bool = False, biases: bool = False) -> Answer:
        """Prepare swaps from the base checkpoint, of embeddings and output biases too where they are asked for.

        `sites` is the number of places that a swap exchanges on this rank.
        """

        def work() -> Answer:
            checkpoint = open_checkpoint(Path(base_dir))
            plan = plan_edit(checkpoint, Scope(embeddings=embeddings, biases=biases))
            self.hotswap = HotSwap(self.get_model(), checkpoint, plan, repacks=on_cpu())
            return {"sites": len(self.hotswap.sites)}

        return _answer("", work)

    def hotswap_apply(self, variant_hash: str, basis: bytes | None, alphas: dict[str, float], keep_norms: bool) -> Answer:
        """Swap to the variant whose basis is `basis` in the bytes of a safetensors file, or to the base (None).

        `probe_error` is the probe's largest error.
        """

        def work() -> Answer:
            from safetensors.torch import load

            if self.exchange is not None:
                self.exchange.restore()
            edits = {} if basis is None else self.hotswap.edits(load(bytes(basis))["basis"], alphas, keep_norms=keep_norms)
            return {"probe_error": self.hotswap.swap(edits)}

        return _answer(variant_hash, work)

    def hotswap_replace(self, variant_hash: str, directory: str, form: str, names: list[str]) -> Answer:
        """Take up another checkpoint, or an adapter: the tensors `names` have its values, all others the base's.

        directory, form: as `editing.replacement.values_of` takes them. `probe_error` is the probe's largest error.
        """

        def work() -> Answer:
            if self.hotswap.applied:
                self.hotswap.swap({})
            if self.exchange is None:
                self.exchange = Exchange(self.get_model(), self.hotswap.checkpoint, repacks=on_cpu())
            read = values_of(Path(directory), form, self.hotswap.checkpoint)
            return {"probe_error": self.exchange.take_up(names, read)}

        return _answer(variant_hash, work)


def _answer(variant_hash: str, work: Callable[[], Answer]) -> Answer:
    try:
        return {"variant_hash": variant_hash, **work()}
    except Exception as error:  # whatever it is: see the module
        return {"variant_hash": variant_hash, "error": type(error).__name__, "message": str(error)}
