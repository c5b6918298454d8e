"""lm-eval's own vLLM backend around an engine that is running already."""

import contextlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.display.progress import Progress
from engine.inference.replica import Replica
from engine.lmeval.endpoint import EndpointModel, endpoint_key


class Engine:
    """A replica as lm-eval uses a vllm.LLM: `generate`, here with progress a request and no weights that are mixed."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replica.llm, name)

    def generate(self, prompts: Sequence[Mapping[str, Any]], *, sampling_params: Any, **rest: Any) -> list[Any]:
        """vLLM's outputs in the prompts' order."""
        found: list[Any] = [None] * len(prompts)
        sequences = [prompt["prompt_token_ids"] for prompt in prompts]
        with contextlib.redirect_stderr(sys.__stderr__), Progress("bench", len(prompts), "requests") as progress:
            for place, output in self._replica.outputs(sequences, sampling_params):
                found[place] = output
                progress.advance()
        return found


def engine_model(replica: Replica, directory: Path, template: Mapping[str, Any] | None) -> Any:
    """lm-eval's `VLLM` model on a running replica of the checkpoint in `directory`; `template` as for `server_model`.

    Its constructor runs as it is, so that every setting is lm-eval's own; only where it would start an engine it gets this one.
    """
    from lm_eval.models import vllm_causallms as backend

    starts_engine = backend.LLM
    backend.LLM = lambda **arguments: Engine(replica)
    try:
        return _with_template(backend.VLLM(pretrained=str(directory)), template)
    finally:
        backend.LLM = starts_engine


def _with_template(model: Any, template: Mapping[str, Any] | None) -> Any:
    """The model, rendering chats as every other stage does: lm-eval passes an `enable_thinking` of its own, or no arguments."""
    render = model.tokenizer.apply_chat_template

    def render_ours(messages: Any, *, enable_thinking: Any = None, **options: Any) -> Any:
        return render(messages, **options, **(template or {}))

    model.tokenizer.apply_chat_template = render_ours
    return model


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Hides lm-eval's bars: several at once, none of what the engine does. `Engine.generate` shows that."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def server_model(url: str, served: EndpointModel, directory: Path, concurrent: int, template: Mapping[str, Any] | None) -> Any:
    """lm-eval's `local-completions` model on an OpenAI-compatible endpoint; `url` ends in /v1, `directory` has the tokenizer.

    `template` are the chat template's arguments, None where prompts are no chat.
    """
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = LocalCompletionsAPI(
        base_url=f"{url.rstrip('/')}/completions",
        model=served.name,
        tokenizer=str(directory),
        tokenizer_backend="huggingface",
        num_concurrent=concurrent,
        max_retries=3,
        max_length=served.max_length,
        add_bos_token=template is None,  # what the tokenizer adds, as in the engine; a chat template has it already
        header={"Authorization": f"Bearer {key}"} if (key := endpoint_key()) else None,
    )
    return _with_template(model, template)
