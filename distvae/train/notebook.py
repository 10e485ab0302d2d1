"""Notebook output that is updated in place, like a live line on a terminal."""

import sys
from html import escape
from importlib import import_module


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class NotebookOutput:
    """A replaceable part of a cell's output."""

    def __init__(self) -> None:
        self._shown = import_module("IPython.display")
        self._handle = self._shown.display(self._shown.HTML(""), display_id=True)

    def show(self, html: str) -> None:
        """Replace the output."""
        self._handle.update(self._shown.HTML(html))


def progress_bar(done: int, count: int, text: str) -> str:
    """Return a progress bar as HTML, with text beside it."""
    return f'<progress value="{done}" max="{count}"></progress> <code>{escape(text)}</code>'
