"""A classifier that is a language model, in our own vLLM engine: Llama-Guard, ShieldGemma, WildGuard and their kind.

It is asked in its own form, and its labels' odds at the first token are read, or its text by patterns.
"""

import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from editing.checkpoint import Checkpoint
from engine.configs.judges import ClassifierModel
from engine.errors import EngineError
from engine.models.tokenizer import open_tokenizer
from engine.models.window import window_of
from engine.paths import hash_of, user_path
from engine.scoring.grader import CLASSIFIER
from engine.scoring.own_model import AFTER_MASK, OwnModelGrader, Unasked
from extraction.templates import chosen_template
from judging.classifier import FIELDS, Shares, filled, judgement_of, read_text
from judging.judgement import Item, Judgement

WINDOW = 8192  # tokens of a question, where the file's vllm.max_model_len says nothing: a cache for 128k would not fit
PROBE = Item("What is the zebra crossing at?", "It is at the corner of the road.")
MOST_LOGPROBS = 64  # label tokens of a scale; vLLM's own limit is 20


class Questions:
    """How a classifier is asked: an item's token ids, and the tokens that its labels begin with.

    Raises EngineError for a template that cannot be read or leaves a text out, and for labels that begin alike.
    """

    def __init__(self, own: ClassifierModel, checkpoint: Checkpoint) -> None:
        self.own = own
        self.template = _template_of(own)
        self.tokenizer = open_tokenizer(checkpoint.directory)
        self.window = int(own.vllm.get("max_model_len", min(window_of(checkpoint), WINDOW)))
        self._check()

    def text(self, item: Item) -> str:
        """The question about an item, up to where its label begins."""
        if self.template is not None:
            return filled(self.template, item) + self.own.lead
        texts = {"user": item.prompt, "assistant": item.response}
        parts = self.own.content == "parts"
        turns = [{"role": role, "content": [{"type": "text", "text": text}] if parts else text} for role, text in texts.items()]
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": self.own.add_generation_prompt}
        options |= self.own.model.chat_template_kwargs
        if self.own.model.chat_template is not None:
            options["chat_template"] = self._chat_template
        try:
            return str(self.tokenizer.apply_chat_template(turns, **options)) + self.own.lead
        except Exception as error:  # jinja2's errors, and what a template raises itself
            raise EngineError(
                f"The chat template of {self.own.model.path} does not take a request and its response ({error}). "
                "If it needs a key, give it with classifier.model.chat_template_kwargs.KEY; for no classifier use [local]."
            ) from error

    def token_ids(self, item: Item) -> list[int] | Unasked:
        """The question's tokens; Unasked for a text with the classifier's control tokens in it, and beyond its window."""
        held = next((token for token in self._control if token in item.prompt or token in item.response), None)
        if held is not None:
            return Unasked(f"the texts hold the classifier's control token {held}")
        text = self.text(item)
        own_start = self.template is None or bool(self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token))
        found = [int(token) for token in self.tokenizer.encode(text, add_special_tokens=not own_start)]
        room = self.window - (self.own.max_tokens if self.own.reads_text else 1)
        return found if len(found) <= room else Unasked(f"the question takes {len(found)} tokens, and there is room for {room}")

    @cached_property
    def label_ids(self) -> dict[str, dict[str, list[int]]]:
        """By scale and label, the tokens that the label begins with, after a space or not."""
        return {scale: self._beginnings(list(given.labels)) for scale, given in self.own.gives.items()}

    @cached_property
    def _chat_template(self) -> str:
        return chosen_template(self.tokenizer, self.own.model.chat_template)

    @cached_property
    def _control(self) -> list[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        return [token.content for token in added if token.special and token.content.strip()]

    def _beginnings(self, labels: Sequence[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        owner: dict[int, str] = {}
        for label in labels:
            tokens = [self.tokenizer.encode(form, add_special_tokens=False) for form in (label, f" {label}")]
            written = [[token for token in ids if self.tokenizer.decode([token]).strip()] for ids in tokens]
            firsts = {ids[0] for ids in written if ids}
            if alike := [owner[token] for token in firsts if token in owner]:
                raise EngineError(
                    f"The labels '{alike[0]}' and '{label}' begin with the same token of {self.own.model.path}. "
                    "Put what they share into classifier.lead, or read the text with patterns."
                )
            owner |= dict.fromkeys(firsts, label)
            found[label] = sorted(firsts)
        return found

    def _check(self) -> None:
        text = self.text(PROBE)
        needed = FIELDS if self.template is None else ("response",)
        if absent := [name for name in needed if getattr(PROBE, name) not in text]:
            where = self.own.template or "the chat template"
            raise EngineError(f"{where} leaves the {absent[0]} out, so {self.own.model.path} would judge without it.")
        if not self.own.reads_text:
            _ = self.label_ids


class ClassifierGrader(OwnModelGrader):
    """Grades by a classifier's labels."""

    def __init__(self, name: str, own: ClassifierModel, cache: Path | None = None) -> None:
        how = "in our own engine, " + ("its text" if own.reads_text else "its labels' odds")
        super().__init__(name, own, form_hash(own), how, CLASSIFIER, cache)
        self.form = own
        self.questions = Questions(own, self.checkpoint)

    def replies(self, items: Sequence[Item]) -> list[str | Unasked]:
        """Each item's shares by scale and label, as JSON."""
        questions = [self.questions.token_ids(item) for item in items]
        asked = [ids for ids in questions if not isinstance(ids, Unasked)]
        said = iter(self._texts(asked) if self.form.reads_text else self._odds(asked))
        return [ids if isinstance(ids, Unasked) else next(said) for ids in questions]

    def judgement(self, reply: str) -> Judgement:
        """What the labels' shares mean."""
        return judgement_of(self.form.gives, json.loads(reply))

    def _texts(self, asked: Sequence[list[int]]) -> list[str | Unasked]:
        from vllm import SamplingParams

        outputs = self._generate(asked, SamplingParams(max_tokens=self.form.max_tokens, temperature=0))
        read = [read_text(self.form.gives, output.outputs[0].text) for output in outputs]
        return [Unasked(one) if isinstance(one, str) else json.dumps(one) for one in read]

    def _odds(self, asked: Sequence[list[int]]) -> list[str | Unasked]:
        from vllm import SamplingParams

        found: list[dict[str, Shares]] = [{} for _ in asked]
        for scale, ids_of in self.questions.label_ids.items():
            ids = sorted({token for tokens in ids_of.values() for token in tokens})
            parameters = SamplingParams(max_tokens=1, temperature=0, logprobs=len(ids), allowed_token_ids=ids)
            for shares, output in zip(found, self._generate(asked, parameters), strict=True):
                entry = output.outputs[0].logprobs[0]
                shares[scale] = {label: sum(math.exp(entry[t].logprob) for t in tokens) for label, tokens in ids_of.items()}
        return [json.dumps(shares) for shares in found]

    def _generate(self, asked: Sequence[list[int]], parameters: Any) -> Any:
        if not asked:
            return []
        more = {**AFTER_MASK, "max_model_len": self.questions.window, "max_logprobs": MOST_LOGPROBS}
        return self.engine(more).generate([{"prompt_token_ids": ids} for ids in asked], parameters, use_tqdm=False)


def form_hash(own: ClassifierModel) -> str:
    """The hash of how a classifier is asked and read: the form that the file gives, and its template's text."""
    form = own.model_dump(mode="json", exclude={"model", "vllm", "template", "template_source"})
    asked = own.model.model_dump(mode="json", include={"chat_template", "chat_template_kwargs"})
    return hash_of({"form": form, "asked": asked, "template": _template_of(own)})


def _template_of(own: ClassifierModel) -> str | None:
    """The text of the file that the classifier is asked with; None where it is asked in another way."""
    if own.request != "template":
        return None
    told = f" It is published at {own.template_source}: save its text, with {{prompt}} and {{response}} in it."
    source = told if own.template_source else ""
    if own.template is None or not user_path(own.template).is_file():
        named = "names no template" if own.template is None else f"names {own.template}, which is no file"
        raise EngineError(f"The classifier {named}. Give the file with --set classifier.template=FILE.{source}")
    text = user_path(own.template).read_text("utf-8")
    if "{response}" not in text:
        raise EngineError(f"{own.template} has no {{response}} in it, so the classifier would judge without it.{source}")
    return text
