"""Makes judging/data/views.jsonl: what SmolLM2-135M-Instruct makes of every shipped label's request and response.

    .venv/bin/python -m engine.scoring.label_views

SmolLM2 is the reader of all of them, whoever wrote the response. It computes in float32, in transformers.
"""

import json
from collections.abc import Sequence
from typing import Any

from engine.display.progress import Progress
from engine.inference.views import ViewTokens, view_tokens
from engine.scoring.labels import SHIPPED, load_labels
from judging.view import KEPT, LEAST_REFUSING, NEXT_TOKENS, VIEWED_TOKENS, text_key

DIGITS = 4
Text = tuple[str, str]


def main() -> None:
    """Write the views of all texts, in the order of the files."""
    import torch
    from transformers import AutoModelForCausalLM

    from engine.models.embedded import embedded_model
    from engine.models.tokenizer import open_tokenizer
    from extraction.rendering import ChatRenderer

    folder = embedded_model()
    tokenizer = open_tokenizer(folder)
    renderer = ChatRenderer(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    items = (label.item for source in SHIPPED for label in load_labels(source).rows)
    texts = list(dict.fromkeys((item.prompt, item.response) for item in items if item.response.strip()))
    prompts = [renderer.render(prompt) for prompt, _ in texts]
    starts = [tokenizer.encode(response, add_special_tokens=False)[:VIEWED_TOKENS] for _, response in texts]
    with torch.inference_mode():
        lines = views_of(model, texts, prompts, starts, view_tokens(tokenizer, renderer.render))
    KEPT.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")


def views_of(
    model: Any, texts: Sequence[Text], prompts: Sequence[list[int]], starts: Sequence[list[int]], tokens: ViewTokens
) -> list[dict[str, Any]]:
    """A line for each text, its numbers rounded; by the definitions of `judging.view`, in transformers."""
    given, refusing = _read(model, prompts, starts, tokens, "views: own requests")
    behind = [_read(model, [list(control)] * len(starts), starts, tokens, "views: others")[0] for control in tokens.controls]
    return [
        {
            "key": text_key(*text),
            "given": round(given[place], DIGITS),
            "otherwise": round(sum(other[place] for other in behind) / len(behind), DIGITS),
            "refusing": round(refusing[place], DIGITS),
        }
        for place, text in enumerate(texts)
    ]


def _read(
    model: Any, prompts: Sequence[list[int]], starts: Sequence[list[int]], tokens: ViewTokens, label: str
) -> tuple[list[float], list[float]]:
    """Each start's mean log-probability behind its prompt, and how likely a refusal opens the answer to that prompt."""
    import torch

    from extraction.teacher import response_logits

    means, refusing = [0.0] * len(starts), [0.0] * len(starts)
    with Progress(label, len(starts)) as progress:
        for place, logits_RV in response_logits(model, prompts, starts):
            logprobs_RV = logits_RV.float().log_softmax(-1)
            means[place] = float(logprobs_RV.gather(-1, torch.tensor(starts[place])[:, None]).mean())
            likeliest = logprobs_RV[0].topk(min(NEXT_TOKENS, logprobs_RV.shape[-1]))
            shares = zip(likeliest.indices.tolist(), likeliest.values.exp().tolist(), strict=True)
            refusing[place] = max(sum(share for token, share in shares if token in tokens.openings), LEAST_REFUSING)
            progress.advance()
    return means, refusing


if __name__ == "__main__":
    main()
