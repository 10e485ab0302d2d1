"""Tables: rows are rows of numbers."""

import shlex
from pathlib import Path

from distvae.config import RowsData
from distvae.data.dataset import Dataset
from distvae.data.family import DataFamily, Values, register
from distvae.data.survey import Survey, count_rows
from distvae.files.refusal import Refusal


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
        """Return what is in a folder of rows; refuse a table that is still to be ingested."""
        from distvae.data.tables.formats import FROM_CSV, SUFFIXES
        from distvae.data.tables.rows import MANIFEST

        place = Path(path)
        if place.is_file() and place.suffix.lower() in SUFFIXES:
            raise Refusal(
                f"{place}: a table; 'distvae ingest {shlex.quote(path)} OUT' makes a folder of it"
                " that can be trained on"
            )
        if place.is_file() and place.suffix.lower() == ".csv":
            raise Refusal(f"{place}: a table as text; {', '.join(SUFFIXES)} expected; {FROM_CSV}")
        if not (place / MANIFEST).is_file():
            return None
        dataset = cls(RowsData(path=path)).open()
        counts = count_rows(dataset, "rows")
        return Survey(path, "rows of numbers", "rows", counts, {"values": dataset.dims})

    @classmethod
    def next_command(cls, survey: Survey) -> str:
        """Return a command to train on a folder of rows, which may be in any units."""
        from distvae.data.tables.rows import training_command

        return training_command(survey.path)
