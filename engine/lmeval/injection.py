"""lm-eval's own vLLM backend around an engine that is running already."""

from pathlib import Path
from typing import Any


def engine_model(llm: Any, directory: Path, **options: Any) -> Any:
    """lm-eval's `VLLM` model on `llm`, a running vllm.LLM of the checkpoint in `directory`; options as lm-eval's constructor.

    Its constructor runs as it is, so that every setting is lm-eval's own; only where it would start an engine it gets this one.
    """
    from lm_eval.models import vllm_causallms as backend

    starts_engine = backend.LLM
    backend.LLM = lambda **arguments: llm
    try:
        return backend.VLLM(pretrained=str(directory), **options)
    finally:
        backend.LLM = starts_engine


def server_model(url: str, name: str, directory: Path, concurrent: int) -> Any:
    """lm-eval's `local-completions` model on an OpenAI-compatible endpoint; `url` ends in /v1."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    return LocalCompletionsAPI(
        base_url=f"{url.rstrip('/')}/completions",
        model=name,
        tokenizer=str(directory),
        tokenizer_backend="huggingface",
        num_concurrent=concurrent,
        max_retries=3,
    )
