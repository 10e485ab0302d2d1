"""Choosing what to try: every branch of a space once, then Optuna's tree-structured Parzen estimator."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.tune.space import Space

if TYPE_CHECKING:
    import optuna

FILE = "optuna.db"
"""The file of a sweep's folder that the trials are remembered in."""


@dataclass(frozen=True)
class Suggest:
    """What a trial is told: a function of Optuna's trial that can be pickled."""

    space: Space

    def __call__(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Its number, from one, and what varies. What was tried before is tried with another seed."""
        values = self.space.suggest(trial)
        earlier = [t for t in trial.study.get_trials(deepcopy=False) if t.number < trial.number]
        if (repeats := sum(t.params == trial.params for t in earlier)) and "train.seed" not in values:
            values["train.seed"] = self.space.base.train.seed + repeats
        return {"number": trial.number + 1, "values": values}


def open_study(space: Space, folder: Path) -> tuple["optuna.Study", Any]:
    """A study that will first be asked for every branch of the space, and the searcher that asks it for Tune."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / FILE).absolute()}")
    sampler, modes = _sampler(space.seed), list(space.metrics.values())
    directions = ["maximize" if mode == "max" else "minimize" for mode in modes]
    study = optuna.create_study(storage=storage, study_name=space.name, sampler=sampler, directions=directions)
    for branch in list(space.branches())[: space.trials]:
        study.enqueue_trial({a.name: str(branch[a.key]) for a in space.active(branch) if a.key in space.deciding})
    # given a list of figures, even of one, Tune's searcher looks at final ones only
    asked = OptunaSearch(
        Suggest(space), list(space.metrics), modes, study_name=space.name, storage=storage, sampler=sampler
    )
    return study, asked


def _sampler(seed: int) -> Any:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def give_up(study: "optuna.Study") -> None:
    """Mark as failed what is still running: nobody will tell."""
    import optuna

    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
