"""Five edits of SmolLM2-135M-Instruct as other tools make them, and a LoRA: what bin/compare is tried on.

python -m tests.engine.compare.by_hand OUT writes them, and OUT/directions.safetensors. Nothing of `editing` writes a weight.
"""

import sys
from pathlib import Path

import torch

from engine.configs.load import load_config
from engine.environment import set_environment
from engine.models.embedded import embedded_model
from engine.rollout.directions import extract_configured
from engine.runs.session import Session
from extraction.files import save_directions
from tests.edited import changed_copy, is_writer, layer_of, with_row_norms, without

LAYER, ROWS = 22, 49280  # the published layer; a vocabulary padded to a multiple of 128
STEPS, RANK = 12, 8


def make_edits(out: Path) -> list[Path]:
    """Row norms kept, a direction a layer, one layer alone, a LoRA merged, a float16 copy with a padded vocabulary; the LoRA."""
    base, session = embedded_model(), Session(load_config("smollm2_135m_k1"))
    directions = extract_configured(session)
    save_directions(out / "directions.safetensors", directions, {"base_hash": session.base_hash})
    units = directions.direction_LH

    def rows_kept(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return with_row_norms(tensor, units[LAYER]) if is_writer(name) else tensor

    def own_layer(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return without(tensor, units[layer_of(name) + 1]) if is_writer(name) else tensor

    def one_layer(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return without(tensor, units[LAYER]) if is_writer(name) and layer_of(name) == LAYER else tensor

    def padded(name: str, tensor: torch.Tensor) -> torch.Tensor:
        short = ROWS - len(tensor) if name.endswith("embed_tokens.weight") else 0
        return torch.cat([tensor, torch.zeros(short, *tensor.shape[1:], dtype=tensor.dtype)]).half()

    made = [
        changed_copy(base, out / "rows-kept", rows_kept),
        changed_copy(base, out / "own-direction-a-layer", own_layer),
        changed_copy(base, out / "one-layer", one_layer),
        merged_lora(base, out),
        changed_copy(base, out / "float16-padded", padded, {"vocab_size": ROWS, "dtype": "float16"}),
    ]
    (out / "float16-padded" / "README.md").write_text("| KL divergence | 0.0000 |\n| Refusals | 2/100 |\n")
    return [*made, out / "lora"]


def merged_lora(base: Path, out: Path) -> Path:
    """A LoRA on queries and values, trained by PEFT for a few steps to answer plain questions in one word, and merged."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    lines = ["What colour is snow?", "How many legs has a cat?", "What is frozen water?", "Which month comes after May?"]
    answers = ["White.", "Four.", "Ice.", "June."]
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": line}, {"role": "assistant", "content": answer}], tokenize=True, return_dict=False
        )
        for line, answer in zip(lines, answers, strict=True)
    ]
    optimizer = torch.optim.AdamW([one for one in adapted.parameters() if one.requires_grad], lr=5e-4)
    for step in range(STEPS):
        tokens = torch.tensor([chats[step % len(chats)]])
        loss = adapted(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(out / "lora")
    merged = adapted.merge_and_unload().to(torch.bfloat16)
    weights = {name.removesuffix(".weight"): value for name, value in merged.state_dict().items()}

    def taken(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return (
            weights[name.removesuffix(".weight")].to(tensor.dtype)
            if name.endswith(("q_proj.weight", "v_proj.weight"))
            else tensor
        )

    return changed_copy(base, out / "lora-merged", taken)


if __name__ == "__main__":
    set_environment()
    Path(sys.argv[1]).mkdir(parents=True)
    print(*make_edits(Path(sys.argv[1])), sep="\n")
