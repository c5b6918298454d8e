"""Text from outside is shown by a terminal and by Markdown, and obeyed by neither."""

import pytest
import typer

from editing.card import for_markdown, render_card
from engine.commands import cli
from engine.display.escape import for_terminal
from engine.display.progress import say
from engine.display.table import Table, as_markdown
from engine.errors import EngineError

HOSTILE = "a\x1b]0;pwned\x07b\x9b31mc\u202ed\ud800e\rf\x00"


def test_what_a_terminal_obeys_is_spelled_out_and_the_rest_stays() -> None:
    assert for_terminal("Größe 3\tπ 漢 😀\n") == "Größe 3\tπ 漢 😀\n"
    shown = for_terminal(HOSTILE)
    assert shown == r"a\x1b]0;pwned\x07b\x9b31mc\u202ed\ud800e\rf\x00"


def test_errors_and_lines_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), cli.user_errors():
        raise EngineError(HOSTILE)
    say(HOSTILE)
    assert "\x1b" not in capsys.readouterr().err


def test_a_cell_stays_in_its_cell() -> None:
    lines = as_markdown(Table("", ["a", "b"], [["x | y\nz", "2"]])).splitlines()
    assert lines[-1] == r"| x \| y z | 2 |"


def test_a_card_obeys_no_name() -> None:
    texts = dict.fromkeys(("scope", "layers", "position", "estimator", "basis_hash", "variant_hash", "base_hash"), "x")
    name = 'evil\n---\ntags: [a]\n<script>|`x`](http://e)"'
    card = render_card({**texts, "variant": name, "base_model": name, "alpha": 1.0, "tensors": {}, "basis_shape": [4, 1]}, "<b>")
    assert card.splitlines()[1] == r'base_model: "evil\n---\ntags: [a]\n<script>|`x`](http://e)\""'
    assert card.splitlines()[3] == "---"
    body = "\n".join(card.splitlines()[4:])
    assert r"\<script\>\|\`x\`\](http://e)" in body
    assert body.count("<") == body.count("\\<") and "\n---\ntags" not in body
    assert for_markdown("a `b` *c*", code=True) == r"a `b` \*c\*"
