"""A model folder's tokenizer and its one rendering, opened with a message for whatever their files may be."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editing.checkpoint import text_config
from editing.reading import read_object
from engine.configs.schema import ModelConfig
from engine.errors import EngineError
from engine.paths import user_path

if TYPE_CHECKING:
    from extraction.rendering import ChatRenderer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
TEMPLATE_FILES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json", "special_tokens_map.json")
PROCESSORS_TEMPLATE = "chat_template.json"
STOP_FILES = ("generation_config.json", "config.json")


def open_tokenizer(directory: Path, *, quick: bool = False) -> Any:
    """The tokenizer of a folder. Raises EngineError where there is none, or transformers cannot read its files.

    quick: read tokenizer.json alone where there is one, which does without importing torch.
    """
    _check_files(directory)
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise EngineError(f"{directory} has no tokenizer (none of {', '.join(TOKENIZER_FILES)}). Copy it beside the weights.")
    try:
        if quick and (directory / TOKENIZER_FILES[0]).is_file():
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(directory)
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # transformers, tokenizers and sentencepiece each raise their own on a damaged file
        raise EngineError(
            f"{directory}: its tokenizer cannot be read ({type(error).__name__}: {_first_line(error)}). Copy its files again."
        ) from error


def open_renderer(directory: Path, model: ModelConfig, *, quick: bool = False) -> "ChatRenderer":
    """The rendering of a folder's prompts, by the template that the configuration names or the folder brings.

    Raises EngineError where the processor's template and the tokenizer's differ, and ExtractionError for one that cannot serve.
    """
    from extraction.rendering import ChatRenderer

    tokenizer = open_tokenizer(directory, quick=quick)
    merge = bool(model.merge_system)
    make = partial(ChatRenderer, tokenizer, model.chat_template_kwargs, clock=model.clock, merge_system=merge)
    if model.chat_template is not None or not (directory / PROCESSORS_TEMPLATE).is_file():
        return make(template=model.chat_template)
    of_processor = _processors_template(directory / PROCESSORS_TEMPLATE)
    own = tokenizer.chat_template
    if own and own != of_processor:
        raise EngineError(
            f"{directory}: {PROCESSORS_TEMPLATE} and the tokenizer's own chat template differ, and loaders use either. "
            "Choose one: --template FILE."
        )
    return make(template=of_processor)


def rendering_files(directory: Path, model: ModelConfig) -> dict[str, Path]:
    """The files that decide a rendering, beside the configuration: a run's identity reads them, and no tokenizer is opened."""
    _check_files(directory)
    more = sorted(directory.glob("additional_chat_templates/*.jinja"))
    names = [*TOKENIZER_FILES, *TEMPLATE_FILES, *(file.relative_to(directory).as_posix() for file in more)]
    found = {name: directory / name for name in names if (directory / name).is_file()}
    given = model.chat_template
    if given is not None and "{" not in given and user_path(given).is_file():
        found["chat_template"] = user_path(given)
    return found


def _check_files(directory: Path) -> None:
    """Raise EngineError for a name of ours that is there and is no file: transformers would go on without it."""
    for name in (*TOKENIZER_FILES, *TEMPLATE_FILES, *STOP_FILES):
        file = directory / name
        if (file.exists() or file.is_symlink()) and not file.is_file():
            raise EngineError(f"{file} is no file: a pipe, a folder or a link to nowhere. Copy the file again.")


def stop_tokens(directory: Path, tokenizer: Any) -> list[int]:
    """The tokens that end a response, as vLLM decides them: the tokenizer's, and generation_config.json's, else config.json's."""
    file = next((directory / name for name in STOP_FILES if (directory / name).is_file()), None)
    said = {} if file is None else read_object(file, "Copy it again.")
    named = said.get("eos_token_id", text_config(said).get("eos_token_id"))
    ids = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    return sorted({token for token in ids if isinstance(token, int) and not isinstance(token, bool)})


def _processors_template(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["chat_template"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EngineError(f"{file} has no readable chat_template ({type(error).__name__}). Mend or remove it.") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")[:200]
