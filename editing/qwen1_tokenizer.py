"""A converter of qwen.tiktoken into a fast tokenizer with Qwen's chat template.

The token ids are the same; Qwen-1's remote code does not run.
"""

import base64
from pathlib import Path
from typing import Any

from editing.errors import EditError

VOCABULARY = "qwen.tiktoken"
# Qwen-1's splitting pattern: like GPT-4's, but one digit at a time. Text is normalised to NFC first.
PATTERN = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)))
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def convert_tokenizer(source: Path, target: Path, *, max_length: int) -> None:
    """Write tokenizer.json and its settings to `target`. Raises EditError where the vocabulary file is missing."""
    from transformers import PreTrainedTokenizerFast

    file = source / VOCABULARY
    if not file.is_file():
        raise EditError(f"{source} has no {VOCABULARY}, Qwen-1's vocabulary. Download it beside the weights.")
    check_vocabulary(file)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast_tokenizer(file),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(target)


def check_vocabulary(file: Path) -> None:
    """Raise EditError unless every line is a token in base64 and its rank, the ranks are 0, 1, ..., and no byte is missing."""
    try:
        pairs = [line.split() for line in file.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except ValueError as error:
        raise EditError(f"{file} is not a readable vocabulary ({error}). Download it again.") from error
    if sorted(ranks.values()) != list(range(len(pairs))) or not {bytes([byte]) for byte in range(256)} <= ranks.keys():
        raise EditError(f"{file} is not a readable vocabulary: it is incomplete. Download it again.")


def fast_tokenizer(file: Path) -> Any:
    """A tokenizers.Tokenizer with the ranks of a tiktoken file as its vocabulary and the specials right after them."""
    from tokenizers import normalizers
    from transformers.convert_slow_tokenizer import TikTokenConverter

    converter = TikTokenConverter(vocab_file=str(file), pattern=PATTERN, extra_special_tokens=list(SPECIALS))
    tokenizer = converter.converted()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer
