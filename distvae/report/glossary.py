"""A table of what the figures of a report mean."""

from collections.abc import Iterable, Iterator

from distvae.numerics.glossary import GLOSSARY
from distvae.report.blocks import Block, facts


def glossary(names: Iterable[str]) -> Iterator[Block]:
    """Yield a table of the known ones of some figures."""
    pairs = []
    for name in dict.fromkeys(names):
        if name in GLOSSARY:
            entry = GLOSSARY[name]
            pairs.append((name, f"{entry.meaning} (docs/measures.md, {entry.section})"))
    if pairs:
        yield facts(pairs)
