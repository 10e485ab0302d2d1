"""How far a trial that has begun and not ended came, as its folder says."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.tune.trial import Trials

if TYPE_CHECKING:
    from distvae.train.documents import Lineage


class TrialProgress(NamedTuple):
    """How far a trial came."""

    epoch: int = 0
    """Epochs finished of the seed that was trained last."""
    bound: float | None = None
    """The bound on validation data after that epoch."""
    seconds: float = 0.0
    """The time of its own epochs, of all seeds."""


def read_progress(
    trials: Trials, number: int, values: Mapping[str, Plain], lineage: "Lineage | None"
) -> TrialProgress:
    """Return how far a trial came; its time begins where it continues from, if it is a branch."""
    records = [_last_epoch(run.folder) for run in trials.runs(number, values)]
    found = [record for record in records if record]
    if not found:
        return TrialProgress()
    seconds = sum(record.get("seconds", 0.0) for record in found)
    if lineage is not None:
        parent = _last_epoch(trials.folder_of(lineage["parent"]), lineage["epoch"])
        seconds -= parent.get("seconds", 0.0)
    return TrialProgress(int(found[-1]["epoch"]), found[-1]["val_bound"], seconds)


def _last_epoch(folder: Path, until: float = float("inf")) -> Mapping[str, float]:
    """Return the record of the last epoch of a run, or of one before; nothing if there is none."""
    from distvae.train.run import read_epochs

    if not folder.exists():
        return {}
    with suppress(Refusal):  # the evaluation of the trial will say what is damaged
        records = [record for record in read_epochs(folder) if record["epoch"] <= until]
        return records[-1] if records else {}
    return {}
