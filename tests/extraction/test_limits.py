"""A chat template that would not end, or that fills the memory, is refused within seconds; others are not disturbed."""

import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from extraction import limits
from extraction.errors import ExtractionError
from extraction.rendering import ChatRenderer
from tests.tiny import TEMPLATE, save_tiny, save_tokenizer

HOSTILE = {
    "nested loops": "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + 3 * "{% endfor %}",
    "a long text": "{{ 'x' * 3000000000 }}",
    "a doubled text": "{% set n = namespace(s='x') %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = save_tokenizer(save_tiny("llama", tmp_path_factory.mktemp("model")))
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_template_that_would_not_end_is_refused(tokenizer: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.tried, "__defaults__", (1, 1 << 28))
    started = time.monotonic()
    with pytest.raises(ExtractionError, match=r"The chat template (cannot serve: on a short message it|fails)"):
        ChatRenderer(tokenizer, template=HOSTILE[kind] + TEMPLATE)
    assert time.monotonic() - started < 8


def test_a_template_that_fails_says_so_itself(tokenizer: Any) -> None:
    with pytest.raises(ExtractionError, match="fails on a user's message"):
        ChatRenderer(tokenizer, template="{{ raise_exception('no') }}" + TEMPLATE)


def test_work_that_ends_is_not_noticed() -> None:
    done: list[int] = []
    assert limits.tried(lambda: done.append(1)) == limits.Trial()
    assert done == [], "it was done elsewhere"
    assert limits.tried(lambda: 1 / 0) == limits.Trial(error="division by zero")
