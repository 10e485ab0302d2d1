"""A sweep: Ray Tune runs the trials, Optuna chooses them. The only module that touches either at run time.

Each trial is a plain function in a Ray worker that keeps its process for the next one: starting it costs seconds.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from distvae.config import to_dict
from distvae.refusal import Refusal
from distvae.track import Store, Tracker
from distvae.tune.results import Result, rank, write_results
from distvae.tune.space import Space
from distvae.tune.trial import FAILURE, Trials, run_trial
from distvae.tune.watch import Watch

STUDY = "optuna.db"
"""The file of a sweep's folder that the sampler keeps its trials in."""
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of data stay what they are
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # figures come with a trial's last report only
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
}


def sweep(
    space: Space,
    out: Path,
    assignments: Mapping[str, Any] | None = None,
    trials: int | None = None,
    concurrent: int | None = None,
    data: str = "",
    quiet: bool = False,
    force: bool = False,
    root: Path = Path("runs"),
) -> list[Result]:
    """Run the trials of a space into the folder `out`; their results, the best first, also written there."""
    space = _settled(space, {**(assignments or {}), **({"data.path": data} if data else {})})
    space = replace(space, trials=trials or space.trials, concurrent=concurrent or space.concurrent or _cores())
    _prepare_data(space, quiet)
    _claim(out, force)
