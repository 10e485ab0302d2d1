"""Settings of tables of numbers."""

from dataclasses import dataclass
from typing import ClassVar

from distvae.config.registry import family
from distvae.files.refusal import Refusal


@family("data")
@dataclass(frozen=True)
class RowsData:
    """Rows of numbers in the Arrow files that `distvae ingest` writes. They may exceed memory."""

    kind: ClassVar[str] = "rows"
    path: str = ""
    """The folder that `distvae ingest` wrote. Empty: $DISTVAE_DATA."""

    @property
    def dims(self) -> int:
        """Refuse: only the folder has the number of values of a row."""
        raise Refusal(
            "data.kind: 'rows' have as many values as their folder says; a kind of known size"
            " expected"
        )
