"""The section of a report that explains the measures which its tables name."""

from collections.abc import Iterator
from dataclasses import replace

from distvae.numerics.glossary import GLOSSARY
from distvae.report.blocks import Cell, Column, Document, Row, Section, Table

CAPTION = "docs/measures.md, in the sources of distvae, says more."


def explain_measures(document: Document) -> Document:
    """Add a section with an entry for each measure that the document's tables name, if known."""
    names = [name for name in dict.fromkeys(_measures(document)) if name in GLOSSARY]
    if not names:
        return document
    table = Table((Column("what"), Column("value")), [_entry(name) for name in names], CAPTION)
    return replace(document, sections=[*document.sections, Section("Measures", [table])])


def _measures(document: Document) -> Iterator[str]:
    """Yield the measures that columns and cells name."""
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                yield from (column.measure for column in block.columns)
                yield from (cell.measure for row in block.rows for cell in row.cells)


def _entry(name: str) -> Row:
    text = f"{GLOSSARY[name]} (docs/measures.md#{name})"
    return Row((Cell(name), Cell(text)), anchor=f"measure-{name}")
