"""Compute one metric of a run during training at a bounded cost: on a sample of a split."""

import math
from pathlib import Path

from distvae.tasks.measures import measures_for
from distvae.tasks.scoring import score_run
from distvae.train.loop import FIGURES_OF_TRAINING
from distvae.train.run import Run
from distvae.train.run_folder import read_epochs
from distvae.train.session import run_arithmetic


def judge_run(folder: Path, figure: str, split: str, sample: int) -> float:
    """Return a metric of a run's last state, on a sample of a split."""
    if figure in FIGURES_OF_TRAINING:
        return float(read_epochs(folder)[-1][figure])
    run = Run.open(folder, "last")
    measures = measures_for(figure, run.config.eval.metrics)
    run.config = run.config.with_("eval", metrics=measures, processes=1)
    with run_arithmetic(run.info):
        return score_run(run, split, progress=False, sample=sample).summary.get(figure, math.nan)
