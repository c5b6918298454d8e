"""Qwen-1 to Qwen2: the converted model against a small reference of Qwen-1's own block, the tokenizer against tiktoken."""

import base64
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from editing.errors import EditError
from editing.qwen1 import convert_qwen1
from editing.qwen1_tokenizer import PATTERN, SPECIALS

H, FF, HEADS, BLOCKS, VOCABULARY = 48, 80, 4, 2, 600
CONFIG: dict[str, Any] = {
    "architectures": ["QWenLMHeadModel"],
    "model_type": "qwen",
    "hidden_size": H,
    "intermediate_size": 2 * FF,  # Qwen-1 counts w1 and w2 together
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "kv_channels": H // HEADS,
    "vocab_size": VOCABULARY,
    "layer_norm_epsilon": 1e-6,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "seq_length": 128,
    "no_bias": True,
    "scale_attn_weights": True,
    "tie_word_embeddings": False,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
}


def random_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    weights = {"transformer.wte.weight": matrix(VOCABULARY, H), "transformer.ln_f.weight": 1 + matrix(H)}
    weights["lm_head.weight"] = matrix(VOCABULARY, H)
    for layer in range(BLOCKS):
        block = f"transformer.h.{layer}."
        weights |= {block + "ln_1.weight": 1 + matrix(H), block + "ln_2.weight": 1 + matrix(H)}
        weights |= {block + "attn.c_attn.weight": matrix(3 * H, H), block + "attn.c_attn.bias": matrix(3 * H)}
        weights[block + "attn.c_proj.weight"] = matrix(H, H)
        weights |= {block + f"mlp.{name}.weight": matrix(FF, H) for name in ("w1", "w2")}
        weights[block + "mlp.c_proj.weight"] = matrix(H, FF)
    return weights


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + CONFIG["layer_norm_epsilon"]) * weight


def rotate(x_THD: Tensor) -> Tensor:
    """Qwen-1's rotary embedding: halves rotated, base 10000, over the whole head."""
    count, _, width = x_THD.shape
    frequencies = 1.0 / 10000 ** (torch.arange(0, width, 2).float() / width)
    angles = torch.arange(count).float()[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    first, second = x_THD.chunk(2, dim=-1)
    return x_THD * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


def qwen1_logits(weights: dict[str, Tensor], tokens: list[int]) -> Tensor:
    """The forward pass of QWenLMHeadModel, written from its equations."""
    x = weights["transformer.wte.weight"][tokens]
    causal = torch.full((len(tokens), len(tokens)), float("-inf")).triu(1)
    for layer in range(BLOCKS):
        own = {name.removeprefix(f"transformer.h.{layer}."): value for name, value in weights.items()}
        mixed = F.linear(rms_norm(x, own["ln_1.weight"]), own["attn.c_attn.weight"], own["attn.c_attn.bias"])
        q, k, v = (part.view(len(tokens), HEADS, H // HEADS) for part in mixed.split(H, dim=-1))
        scores = torch.einsum("qhd,khd->hqk", rotate(q), rotate(k)) / (H // HEADS) ** 0.5 + causal
        attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(len(tokens), H)
        x = x + attended @ own["attn.c_proj.weight"].T
        y = rms_norm(x, own["ln_2.weight"])
        x = x + (y @ own["mlp.w1.weight"].T * F.silu(y @ own["mlp.w2.weight"].T)) @ own["mlp.c_proj.weight"].T
    return rms_norm(x, weights["transformer.ln_f.weight"]) @ weights["lm_head.weight"].T


MERGED = [b"he", b"ll", b"hell", b"hello", b" w", b"or", b" wor", b"ld", "é".encode()]
RANKS = {token: rank for rank, token in enumerate([*(bytes([number]) for number in range(256)), *MERGED])}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "qwen1"
    directory.mkdir()
    save_file(random_weights(), directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(CONFIG))
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in RANKS.items()]
    (directory / "qwen.tiktoken").write_text("\n".join(lines) + "\n")
    return directory


def test_the_converted_model_computes_what_qwen1_does(source: Path, tmp_path: Path) -> None:
    convert_qwen1(source, tmp_path / "qwen2")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "qwen2", dtype=torch.float32)
    tokens = [1, 500, 33, 7, 260, 42, 599, 0, 12]
    with torch.no_grad():
        found = model(torch.tensor([tokens])).logits[0]
    expected = qwen1_logits(random_weights(), tokens)
    difference = float((found - expected).abs().max())
    print(f"largest difference {difference:.1e}, logits up to {float(expected.abs().max()):.1f}")
    assert difference < 1e-4
    assert model.config.max_position_embeddings == 128
    assert model.config.model_type == "qwen2"


def test_the_converted_tokenizer_gives_tiktokens_ids(source: Path, tmp_path: Path) -> None:
    convert_qwen1(source, tmp_path / "qwen2")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "qwen2")
    specials = {token: len(RANKS) + place for place, token in enumerate(SPECIALS)}
    reference = tiktoken.Encoding("qwen", pat_str=PATTERN, mergeable_ranks=RANKS, special_tokens=specials)
    for text in ("hello world", "hello  wor\n\n ld's 123 é", "e\u0301 normalised", "日本語 and \t tabs", "I'll say: 'hello'!"):
        assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(unicodedata.normalize("NFC", text)), text
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], add_generation_prompt=True, tokenize=False)
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert rendered == system + "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == specials["<|im_end|>"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, "Expected a Qwen-1 checkpoint"),
        ({"architectures": ["QWen2"]}, r"Expected a Qwen-1 checkpoint \(architectures \['QWenLMHeadModel'\]\), found"),
        ({"num_attention_heads": 0}, "Qwen-1's config.json needs num_attention_heads, a whole number from 1 on"),
        ({"seq_length": None}, "Qwen-1's config.json needs seq_length"),
        ({"rotary_emb_base": "10k"}, "Qwen-1's config.json needs rotary_emb_base, a number"),
        ({"no_bias": False}, "Qwen-1 setting no_bias = False"),
        ({"kv_channels": 16}, "Qwen-1 setting kv_channels = 16"),
    ],
)
def test_what_is_not_qwen1_is_refused(source: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (source / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(EditError, match=message):
        convert_qwen1(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"aGVsbG8= x\n", b"\xff\xfe\n", b"one two three\n", b"!!! 1\n", b"", b"aGVsbG8= 1\n" * 2])
def test_a_damaged_vocabulary_is_named(source: Path, tmp_path: Path, content: bytes) -> None:
    (source / "qwen.tiktoken").write_bytes(content)
    with pytest.raises(EditError, match=r"qwen.tiktoken is not a readable vocabulary"):
        convert_qwen1(source, tmp_path / "out")


def test_unknown_tensors_and_a_missing_vocabulary_leave_nothing(source: Path, tmp_path: Path) -> None:
    (source / "qwen.tiktoken").unlink()
    with pytest.raises(EditError, match=r"has no qwen.tiktoken"):
        convert_qwen1(source, tmp_path / "out")
    save_file(random_weights() | {"transformer.h.0.mlp.w3.weight": torch.zeros(2, 2)}, source / "model.safetensors")
    with pytest.raises(EditError, match=r"w3.weight is unknown in Qwen-1's layout"):
        convert_qwen1(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["qwen1"]
