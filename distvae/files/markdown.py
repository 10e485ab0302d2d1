"""Tables in Markdown, and texts without markup."""

import re
from collections.abc import Iterable, Sequence

from distvae.files.untrusted import one_line

SPECIAL = re.compile(r"([\\`*\[\]<>&|~:]|\b_|_\b)")
"""Characters that begin markup within a line, or a link from a bare address."""
UNESCAPED = re.compile(r"(?<!\\)\|")
"""A bar that would begin another column."""
MOST = 500
"""The largest number of characters in untrusted text."""


def plain_text(text: object) -> str:
    """Return untrusted text as Markdown that shows it literally, on one line."""
    return SPECIAL.sub(r"\\\1", one_line(str(text), MOST))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table. A cell may hold Markdown, but no other column."""
    rule = ["---"] * len(head)
    escaped = ([UNESCAPED.sub(r"\|", cell) for cell in cells] for cells in (head, rule, *rows))
    return [f"| {' | '.join(cells)} |" for cells in escaped]
