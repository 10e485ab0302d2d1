"""Tables: rows are rows of numbers."""

from collections.abc import Sequence
from pathlib import Path

from distvae.config import RowsData
from distvae.data.dataset import Dataset
from distvae.data.family import DataFamily, Values, register
from distvae.data.survey import Survey, count_rows
from distvae.files.refusal import Refusal

TABLE = "a table of numbers, to be ingested first"
BLOCK = 2**16
"""Rows of a table that are read together."""


@register(RowsData)
class RowsFamily(DataFamily[RowsData]):
    """Rows that `distvae ingest` placed in Arrow files."""

    values = Values(may_be_missing=True)

    def open(self, quiet: bool = False) -> Dataset:
        """Return the rows by split, mapped into memory."""
        from distvae.data.tables.rows import open_rows

        return open_rows(self.config, quiet)

    @classmethod
    def survey(cls, path: str) -> Survey | None:
        """Return what is in a folder of rows, or in a table that is still to be ingested."""
        from distvae.data.tables.formats import FROM_CSV, SUFFIXES, Table
        from distvae.data.tables.rows import MANIFEST

        place = Path(path)
        if place.is_file() and place.suffix.lower() in SUFFIXES:
            table = Table.open(place)
            return Survey(path, TABLE, "rows", {}, {"rows": table.rows, "values": table.values})
        if place.is_file() and place.suffix.lower() == ".csv":
            raise Refusal(f"{place}: a table as text; {', '.join(SUFFIXES)} expected; {FROM_CSV}")
        if not (place / MANIFEST).is_file():
            return None
        dataset = cls(RowsData(path=path)).open()
        counts = count_rows(dataset, "rows")
        return Survey(path, "rows of numbers", "rows", counts, {"values": dataset.dims})

    @classmethod
    def examine(cls, path: str, settings: Sequence[str] = ()) -> Survey | None:
        """Return the same, with every row of a table read."""
        from distvae.data.tables.formats import Table

        found = cls.survey(path)
        if found and found.layout == TABLE:
            for _ in Table.open(Path(path)).blocks(BLOCK):
                pass
        return found

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return a command to ingest a table, or to train on a folder of rows, which may be in any
        units.
        """
        from distvae.data.tables.rows import training_command

        if survey.layout == TABLE:
            return f"distvae ingest {survey.quoted_path} rows"
        return training_command(survey.path)
