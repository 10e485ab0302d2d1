"""Output in a notebook that is replaced in place, as a live line is on a terminal."""

import sys
from html import escape
from importlib import import_module


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class NotebookOutput:
    """A part of a cell's output."""

    def __init__(self) -> None:
        self._shown = import_module("IPython.display")
        self._handle = self._shown.display(self._shown.HTML(""), display_id=True)

    def show(self, html: str) -> None:
        """Replace what is shown."""
        self._handle.update(self._shown.HTML(html))


def progress_bar(done: int, count: int, text: str) -> str:
    """Return a bar as HTML, with a line of text beside it."""
    return f'<progress value="{done}" max="{count}"></progress> <code>{escape(text)}</code>'
