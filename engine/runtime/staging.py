"""Small tables from the host to fixed addresses on a device, without waiting for it."""
# T = tokens

from typing import Any

import torch
from torch import Tensor


class Staging:
    """Two host buffers by turns: while a copy from one may be under way, the next pass is written into the other."""

    def __init__(self, target_T: Tensor) -> None:
        self.target_T, self._turn = target_T, 0
        self._on_gpu = target_T.device.type == "cuda"
        self._hosts = [torch.zeros_like(target_T, device="cpu", pin_memory=self._on_gpu) for _ in range(2)]
        self._views = [host_T.numpy() for host_T in self._hosts]
        self._done = [torch.cuda.Event() for _ in range(2)] if self._on_gpu else []

    def next_host(self) -> Any:
        """The buffer to write into, as numpy."""
        self._turn = 1 - self._turn
        if self._on_gpu:
            self._done[self._turn].synchronize()  # two passes ago: over long since
        return self._views[self._turn]

    def send(self, length: int) -> None:
        """Copy the first numbers of the buffer just written to the target, in the current stream's order."""
        self.target_T[:length].copy_(self._hosts[self._turn][:length], non_blocking=True)
        if self._on_gpu:
            self._done[self._turn].record()
