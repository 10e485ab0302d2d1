"""Notebooks as Markdown, with their outputs."""

import json
from collections.abc import Iterator
from typing import Any

Cell = dict[str, Any]


def page_of_notebook(text: str) -> str:
    """Return the page of a notebook, given the text of its file."""
    return "\n\n".join(part for cell in json.loads(text)["cells"] for part in parts(cell))


def parts(cell: Cell) -> Iterator[str]:
    """Yield a cell and its outputs."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        yield shown(output)


def shown(output: Cell) -> str:
    """Return an output: a figure, HTML or text."""
    data = output.get("data", {})
    if "image/png" in data:
        png = "".join(data["image/png"]).strip()
        return raw(f'<img alt="figure" src="data:image/png;base64,{png}">')
    if "text/html" in data:
        return raw("".join(data["text/html"]))
    return "```text\n" + "".join(output.get("text", data.get("text/plain", ""))) + "\n```"


def raw(html: str) -> str:
    """Return HTML marked to be copied unchanged."""
    return f'````{{raw}} html\n<div class="output">{html}</div>\n````'
