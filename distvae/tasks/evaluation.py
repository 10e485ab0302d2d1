"""The result of an evaluation: a row per file, a row per speaker, and a summary."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distvae.files.paths import atomic_file
from distvae.files.untrusted import Plain, finite

if TYPE_CHECKING:
    from pandas import DataFrame, Series

TABLES = tuple(
    f"{name}.{kind}" for name in ("files", "speakers", "refused") for kind in ("csv", "parquet")
)
"""The files of the tables of an evaluation of recordings."""


class Refused(NamedTuple):
    """A file that a measure could not score."""

    file: str
    metric: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """The scores of a split."""

    split: str
    summary: dict[str, float]
    """Means over files, their standard deviation over speakers (`_std`), the number of files that
    a measure refused (`_refused`), and the numbers of live and dead atoms.
    """
    files: "DataFrame | None" = None
    speakers: "DataFrame | None" = None
    """Mean and standard deviation (`_std`) of each column over the files of a speaker."""
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Remarks on how the scores were computed."""

    def save(self, folder: Path) -> None:
        """Write the tables (CSV, Parquet) and the summary (JSON) into an existing folder."""
        tables = {"files": self.files, "speakers": self.speakers}
        if self.files is not None:
            import pandas

            tables["refused"] = pandas.DataFrame(self.refused, columns=list(Refused._fields))
        for name, table in tables.items():
            if table is not None:
                _write_table(table, folder / name)
        with atomic_file(folder / "summary.json") as path:
            path.write_text(json.dumps(finite(self.summary), indent=2) + "\n")


def summarise(
    split: str,
    rows: Sequence[Mapping[str, Plain]],
    refused: list[Refused],
    atoms: dict[str, float],
    notes: list[str],
) -> Evaluation:
    """Return the evaluation of files; a row has the file, its speaker, and numbers."""
    import pandas

    files = pandas.DataFrame(list(rows))
    by_speaker = files.drop(columns="file").groupby("speaker")
    mean, spread = by_speaker.mean(), by_speaker.std()
    speakers = mean.join(spread.add_suffix("_std")).assign(files=by_speaker.size()).reset_index()
    summary = {"files": float(len(files))}
    summary |= _to_floats(files.drop(columns=["file", "speaker"]).mean())
    summary |= _to_floats(mean.drop(columns="seconds").std().add_suffix("_std"))
    for refusal in refused:
        name = f"{refusal.metric}_refused"
        summary[name] = summary.get(name, 0.0) + 1
    return Evaluation(split, summary | atoms, files, speakers, refused, notes)


def _to_floats(figures: "Series[float]") -> dict[str, float]:
    return {str(name): float(value) for name, value in figures.items()}


def _write_table(table: "DataFrame", stem: Path) -> None:
    with atomic_file(stem.with_suffix(".csv")) as path:
        table.to_csv(path, index=False, float_format="%.6g")
    with atomic_file(stem.with_suffix(".parquet")) as path:
        table.to_parquet(path, index=False)
