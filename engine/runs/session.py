"""A run's inputs with the one engine that its stages share; it starts when a stage needs it."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine.configs.schema import RunConfig, parse_numbers
from engine.display.progress import say
from engine.environment import has_gpu, release_gpu_memory, set_environment, versions
from engine.runs.inputs import RunInputs

if TYPE_CHECKING:
    from engine.inference.replica import Replica


class Session(RunInputs):
    """A run's inputs with an engine on its base. Close it to stop the engine; the next stage that needs one starts another."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.width: int | None = None
        """GPUs an engine, where the machine and not the configuration decides it."""
        self._replica: Replica | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def replica(self) -> "Replica":
        """The engine, started on first use."""
        if self._replica is None:
            from engine.inference.arguments import engine_arguments
            from engine.inference.replica import Replica

            gpu = has_gpu()
            set_environment()
            release_gpu_memory()
            self.arithmetic.say()
            say(f"engine: starting vLLM {versions()['vllm']} ({'GPU' if gpu else 'no GPU: CPU build, eager mode, slow'})")
            limits = {"window": self.window, "width": self.width}
            arguments = engine_arguments(self.config, self.checkpoint.directory, has_gpu=gpu, **limits)
            self._replica = self._steered(arguments) if self.config.edit.form == "runtime" else Replica(arguments, self.base)
        return self._replica

    def _steered(self, arguments: dict[str, Any]) -> "Replica":
        """An engine that takes variants out of what is written, while it runs."""
        from engine.inference.runtime_replica import RuntimeReplica
        from engine.inference.steerable import MAX_RANK, steerable_arguments
        from engine.runtime.requests import EMBEDDING, WRITES

        edit = self.config.edit
        rank = max(MAX_RANK, most_directions(self.config))
        sites = (WRITES, EMBEDDING) if edit.embeddings else (WRITES,)
        return RuntimeReplica(steerable_arguments(arguments, sites=sites, max_rank=rank, biases=edit.biases), self.base)

    def use(self, replica: "Replica") -> None:
        """Take an engine that runs already as this session's."""
        self._replica = replica

    def close(self) -> None:
        if self._replica is not None:
            self._replica.close()
            self._replica = None


def most_directions(config: RunConfig) -> int:
    """The largest subspace that a configuration's run or sweep can take out, in directions."""
    layers, k = config.directions.layers, config.directions.k
    named = [k or len(layers)] if isinstance(layers, list) else [k or 1]
    for name in config.sweep.subspaces:
        named.append(int(name.removeprefix("top")) if name.startswith("top") else len(set(parse_numbers(name))))
    return max(named)
