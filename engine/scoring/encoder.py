"""A classifier that is an encoder with a classification head, such as a rejection classifier, through transformers.

The label names are the model's own (`id2label` in its config.json).
"""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from engine.configs.judges import ClassifierModel
from engine.environment import has_gpu, release_gpu_memory
from engine.errors import EngineError
from engine.models.tokenizer import open_tokenizer
from engine.models.window import window_of
from engine.scoring.classifier import form_hash
from engine.scoring.grader import CLASSIFIER
from engine.scoring.own_model import OwnModelGrader, Unasked
from judging.classifier import judgement_of
from judging.judgement import Item, Judgement

BATCH = 32
COUNT_BEHIND_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet", "longformer", "ibert")


class EncoderGrader(OwnModelGrader):
    """Grades by an encoder's labels. Raises EngineError where the labels are not those of its config.json."""

    def __init__(self, name: str, own: ClassifierModel) -> None:
        super().__init__(name, own, form_hash(own), "by transformers, its labels' odds", CLASSIFIER)
        self.form = own
        self._labels = {int(number): str(label) for number, label in self.checkpoint.config.get("id2label", {}).items()}
        for scale, given in own.gives.items():
            if sorted(given.labels) != sorted(self._labels.values()):
                raise EngineError(
                    f"{own.model.path} has the labels {', '.join(self._labels.values()) or 'of no classifier'}; "
                    f"gives.{scale}.labels has {', '.join(given.labels)}. Name each of them once."
                )

    def replies(self, items: Sequence[Item]) -> list[str | Unasked]:
        """Each item's shares by scale and label, as JSON. Items go in batches by length, so that little is padding."""
        encoded = [self._encoded(item) for item in items]
        found: list[str | Unasked] = [one if isinstance(one, Unasked) else "" for one in encoded]
        places = [place for place, one in enumerate(encoded) if not isinstance(one, Unasked)]
        places.sort(key=lambda place: len(encoded[place]["input_ids"]))
        for start in range(0, len(places), BATCH):
            part = places[start : start + BATCH]
            for place, shares in zip(part, self._shares([encoded[place] for place in part]), strict=True):
                found[place] = json.dumps(dict.fromkeys(self.form.gives, shares))
        return found

    def judgement(self, reply: str) -> Judgement:
        """What the labels' shares mean."""
        return judgement_of(self.form.gives, json.loads(reply))

    @cached_property
    def _tokenizer(self) -> Any:
        return open_tokenizer(self.checkpoint.directory)

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForSequenceClassification

        release_gpu_memory()
        self.arithmetic.say()
        dtype = getattr(torch, self.own.model.dtype)
        model = AutoModelForSequenceClassification.from_pretrained(self.checkpoint.directory, dtype=dtype)
        return model.eval().to("cuda" if has_gpu() else "cpu")

    @cached_property
    def _positions(self) -> int:
        """Tokens that it has positions for: some types count them from behind the padding token's own."""
        config = self.checkpoint.config
        before = int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") in COUNT_BEHIND_PADDING else 0
        return window_of(self.checkpoint) - before

    def _encoded(self, item: Item) -> Any:
        texts = (item.prompt, item.response) if self.form.request == "pair" else (item.response,)
        window = min(self._positions, self._tokenizer.model_max_length)
        cut = {"truncation": True, "max_length": window} if self.form.truncate else {}
        encoded = self._tokenizer(*texts, **cut)
        length = len(encoded["input_ids"])
        return encoded if length <= window else Unasked(f"the texts take {length} tokens; the classifier takes {window}")

    def _shares(self, encoded: Sequence[Any]) -> list[dict[str, float]]:
        import torch

        batch = self._tokenizer.pad(list(encoded), return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            logits_BC = self._model(**batch).logits.double().cpu()
        several = self._model.config.problem_type == "multi_label_classification"
        shares_BC = logits_BC.sigmoid() if several else logits_BC.softmax(-1)
        return [{self._labels[number]: float(share) for number, share in enumerate(row)} for row in shares_BC]
