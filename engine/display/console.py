"""Shows a command's result on stdout, in the form that was asked for."""

import json
import shutil
from typing import Any

from engine.display.escape import for_terminal
from engine.display.table import FORMATS, Table, View, as_text, view_as, wrapped

LOG_WIDTH = 170  # where stdout is a file and COLUMNS says nothing
FORMS = ("text", "json", *FORMATS)


def show(view: View, form: str = "text", value: Any = None) -> None:
    """Print a view in one of FORMS; `value` is the whole result, which JSON gives."""
    if form == "json":
        print(json.dumps(value, indent=2))
    elif form == "text":
        print(for_terminal(view_as_text(view, shutil.get_terminal_size((LOG_WIDTH, 24)).columns)))
    else:
        print(for_terminal(view_as(view, form)))


def view_as_text(view: View, width: int) -> str:
    """Tables and sentences for a terminal of `width` columns, an empty line around each table."""
    lines: list[str] = []
    for block in view:
        if isinstance(block, Table):
            lines += ["", as_text(block, width), ""]
        else:
            lines.append(wrapped(block, width))
    return "\n".join(lines).strip("\n")
