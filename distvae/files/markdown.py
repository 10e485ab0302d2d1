"""Tables in Markdown."""

import re
from collections.abc import Collection, Iterable, Sequence

UNESCAPED = re.compile(r"(?<!\\)\|")
"""A bar that would begin another column."""


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Collection[int] = ()
) -> list[str]:
    """Return the lines of a table, with the columns of the given numbers aligned to the right.

    A cell may hold Markdown, but no other column.
    """
    rule = ["---:" if column in numeric else "---" for column in range(len(head))]
    escaped = ([UNESCAPED.sub(r"\|", cell) for cell in cells] for cells in (head, rule, *rows))
    return [f"| {' | '.join(cells)} |" for cells in escaped]
