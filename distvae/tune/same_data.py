"""The data of a sweep that is resumed must be the data that its trials have trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.files.refusal import Refusal
from distvae.tune.optuna_study import read_trials
from distvae.tune.space import Space
from distvae.tune.trial import TrialRun, Trials

if TYPE_CHECKING:
    from distvae.config import DataConfig
    from distvae.data.dataset import Dataset

DIGITS = 12
"""Characters of a digest that a message shows."""


def refuse_other_data(space: Space, out: Path, base: "Dataset") -> None:
    """Refuse to resume a sweep whose trials have trained on other data than the next ones would.

    The data of the space's base is open already. Other data, of rows or of axes, is opened once
    for each path, with the settings of the first trial that trained on it. That the settings are
    those of before is checked elsewhere.
    """
    from distvae.data import open_dataset

    opened: dict[str, tuple[DataConfig, Dataset]] = {}
    for run in _begun_runs(space, out):
        config = space.config(run.values).data
        if config.path not in opened:
            is_base = config == space.base.data
            opened[config.path] = config, base if is_base else open_dataset(config, quiet=True)
        settings, dataset = opened[config.path]
        if config == settings:
            _refuse_other(run, dataset, out)


def _begun_runs(space: Space, out: Path) -> Iterator[TrialRun]:
    """Yield the runs of a sweep's trials that have begun to train."""
    trials = Trials(space, out / "trials")
    for trial in read_trials(out):
        for run in trials.runs(trial.number + 1, trial.user_attrs.get("values", {})):
            if (run.folder / "run.json").is_file():
                yield run


def _refuse_other(run: TrialRun, dataset: "Dataset", out: Path) -> None:
    from distvae.train.run import read_info

    info = read_info(run.folder)
    before, now = info["data_digest"], dataset.digest
    if before != now:
        raise Refusal(
            f"{out}: trial {run.name} trained on {info['data']} (digest {before[:DIGITS]}), and the"
            f" data now is {dataset.name} (digest {now[:DIGITS]}); --data as before expected, or"
            " another -o for another sweep"
        )
