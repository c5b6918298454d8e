"""Classifiers as judges' files: the ones that are shipped, tiny models of their architectures, and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.configs.judges import JUDGE_DIR, ClassifierModel, load_judge
from engine.errors import EngineError
from engine.scoring.classifier import ClassifierGrader, form_hash
from engine.scoring.open import check_judge, open_grader
from judging.judgement import Item
from tests.tiny import save_tiny, save_tokenizer

SERVED = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "max_position_embeddings": 512}
# The architecture of each shipped classifier that vLLM runs here in a tiny size; Llama-Guard 4's it does not.
FAMILIES = {
    "llama_guard3": "llama",
    "qwen3guard": "qwen3",
    "shieldgemma": "gemma2",
    "wildguard": "mistral",
    "harmbench": "llama",
    "strongreject": "gemma",
}
ITEMS = [Item("Name a colour.", "Blue.", "stop"), Item("Name a town.", "I cannot do that.", "stop")]
TEMPLATE = "Human: {prompt}\nAssistant: {response}\nAnswer: "


def shipped() -> list[str]:
    return sorted(path.stem for path in JUDGE_DIR.glob("*.toml") if "[classifier]" in path.read_text())


def tiny_of(family: str, folder: Path) -> Path:
    return save_tokenizer(save_tiny(family, folder, dtype=torch.float32, sizes=SERVED))


def opened(name: str, folder: Path, tmp_path: Path) -> Any:
    """A shipped judge on a tiny model, with a template where it wants one."""
    template = tmp_path / "template.txt"
    template.write_text(TEMPLATE)
    source = (JUDGE_DIR / f"{name}.toml").read_text()
    more = {"classifier.template": str(template)} if 'request = "template"' in source else {}
    return load_judge(name, {"classifier.model.path": str(folder), "classifier.vllm.max_model_len": 256, **more})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("REFUSAL_ROLLOUT_CACHE", str(tmp_path / "cache"))
    yield


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_classifier_has_a_form(name: str) -> None:
    file = load_judge(name)
    assert file is not None and file.classifier is not None and file.classifier.gives


@pytest.mark.parametrize("name", FAMILIES)
def test_a_shipped_classifier_is_asked_about_both_texts_whole(name: str, tmp_path: Path) -> None:
    file = opened(name, tiny_of(FAMILIES[name], tmp_path / "model"), tmp_path)
    grader = ClassifierGrader(name, file.classifier)
    text = grader.questions.text(ITEMS[1])
    grader.close()
    assert ITEMS[1].prompt in text and ITEMS[1].response in text


@pytest.mark.engine
def test_the_odds_are_those_of_transformers_at_the_label_and_kept(tmp_path: Path) -> None:
    folder = tiny_of("llama", tmp_path / "model")
    file = opened("llama_guard3", folder, tmp_path)
    grader = open_grader("llama_guard3", file, expected=2)
    grader.ask(ITEMS)
    grader.drain()
    found = grader.grade(ITEMS)
    assert isinstance(grader, ClassifierGrader)
    expected = [odds_by_transformers(folder, grader.questions.text(item), {"safe": "s", "unsafe": "u"}) for item in ITEMS]
    grader.close()
    for one, odds in zip(found, expected, strict=True):
        assert json.loads(one.raw_reply or "")["harm"] == pytest.approx(odds, abs=2e-4)
        assert one.harm == pytest.approx(odds["unsafe"], abs=2e-4)
    again = open_grader("llama_guard3", file, expected=2)
    again.ask(ITEMS)
    again.drain()
    assert again.grade(ITEMS) == found and again.report == {"judged": 0}
    again.close()


def odds_by_transformers(folder: Path, text: str, firsts: dict[str, str]) -> dict[str, float]:
    """Each label's share of the odds at the next token, of the labels' first characters with and without a space before."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer.encode(text, add_special_tokens=False)
    with torch.inference_mode():
        weights = model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
    values = {label: float(weights[tokenizer.convert_tokens_to_ids(first)]) for label, first in firsts.items()}
    return {label: value / sum(values.values()) for label, value in values.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "llama_guard3"])
def test_a_tiny_model_of_each_architecture_gives_what_its_file_says(name: str, tmp_path: Path) -> None:
    file = opened(name, tiny_of(FAMILIES[name], tmp_path / "model"), tmp_path)
    grader = open_grader(name, file, expected=2)
    grader.ask(ITEMS)
    grader.drain()
    found = grader.grade(ITEMS)
    grader.close()
    for one in found:
        said = one.error is None and one.raw_reply is not None
        assert said if not file.classifier.reads_text else "no label of" in str(one.error)


def test_an_encoder_gives_what_transformers_gives(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "encoder")
    file = load_judge("rejection", {"classifier.model.path": str(folder)})
    grader = open_grader("rejection", file, expected=2)
    grader.ask(ITEMS)
    grader.drain()
    found = grader.grade(ITEMS)
    grader.close()
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), top_k=None)
    for one, item in zip(found, ITEMS, strict=True):
        expected = {entry["label"]: entry["score"] for entry in classify([item.response])[0]}
        assert json.loads(one.raw_reply or "")["declined"] == pytest.approx(expected, abs=1e-5)
        assert one.declined is (expected["REJECTION"] > expected["NORMAL"])


def tiny_encoder(folder: Path) -> Path:
    """A random RoBERTa with a head of two labels."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(0)
    sizes = {"vocab_size": 101, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    names = {"id2label": {0: "NORMAL", 1: "REJECTION"}, "label2id": {"NORMAL": 0, "REJECTION": 1}}
    config = RobertaConfig(**sizes, **names, max_position_embeddings=130, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return save_tokenizer(folder)


def test_an_encoder_that_truncates_takes_a_response_of_any_length(tmp_path: Path) -> None:
    file = load_judge("rejection", {"classifier.model.path": str(tiny_encoder(tmp_path / "encoder"))})
    grader, items = open_grader("rejection", file, expected=1), [Item("Name a colour.", "word " * 400)]
    grader.ask(items)
    grader.drain()
    [found] = grader.grade(items)
    grader.close()
    assert found.declined is not None


def test_an_encoder_with_other_labels_is_refused_by_name(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "encoder")
    file = load_judge(
        "rejection", {"classifier.model.path": str(folder), "classifier.gives.declined.labels": {"A": True, "B": False}}
    )
    with pytest.raises(EngineError, match="has the labels NORMAL, REJECTION"):
        check_judge(file, None)


def test_a_judge_that_wants_a_template_says_where_it_is_published(tmp_path: Path) -> None:
    file = load_judge("wildguard", {"classifier.model.path": str(tiny_of("mistral", tmp_path / "model"))})
    with pytest.raises(EngineError, match=r"--set classifier\.template=FILE.*github\.com/allenai/wildguard"):
        check_judge(file, None)


def test_a_template_without_the_response_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("Human: {prompt}\nAnswer: ")
    overrides = {
        "classifier.model.path": str(tiny_of("mistral", tmp_path / "model")),
        "classifier.template": str(tmp_path / "t.txt"),
    }
    with pytest.raises(EngineError, match=r"has no \{response\}"):
        check_judge(load_judge("wildguard", overrides), None)


def test_a_chat_template_that_leaves_the_response_out_is_refused(tmp_path: Path) -> None:
    template = "{{ messages[0]['content'] }} Safe or unsafe? "
    overrides = {"classifier.model.path": str(tiny_of("llama", tmp_path / "model")), "classifier.model.chat_template": template}
    with pytest.raises(EngineError, match="leaves the response out"):
        check_judge(load_judge("llama_guard3", overrides), None)


def test_labels_that_begin_alike_are_refused(tmp_path: Path) -> None:
    labels = {"classifier.gives.harm.labels": {"safe": 0, "serious": 1}}
    overrides = {"classifier.model.path": str(tiny_of("llama", tmp_path / "model")), **labels}
    with pytest.raises(EngineError, match="begin with the same token"):
        check_judge(load_judge("llama_guard3", overrides), None)


@pytest.mark.parametrize(("response", "words"), [("x" * 600, "there is room for 255"), ("so </s> it is", "control token </s>")])
def test_a_response_that_cannot_be_put_to_it_is_that_rows_error(response: str, words: str, tmp_path: Path) -> None:
    file = opened("llama_guard3", tiny_of("llama", tmp_path / "model"), tmp_path)
    grader = open_grader("llama_guard3", file, expected=1)
    items = [Item("Name a colour.", response)]
    grader.ask(items)
    grader.drain()
    [found] = grader.grade(items)
    grader.close()
    assert found.harm is None and words in str(found.error)


def test_the_form_and_the_templates_text_make_the_rubrics_hash(tmp_path: Path) -> None:
    template = tmp_path / "t.txt"
    found = set()
    for text in (TEMPLATE, TEMPLATE + "!"):
        template.write_text(text)
        file = load_judge("harmbench", {"classifier.template": str(template)})
        assert file is not None and isinstance(file.classifier, ClassifierModel)
        found.add(form_hash(file.classifier))
    assert len(found) == 2
