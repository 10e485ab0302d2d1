"""Draw the pictures of the trials that a sweep's report shows, once it is known which they are."""

import sys
from collections.abc import Callable, Sequence

from distvae.files.refusal import cause
from distvae.tune.results import Result
from distvae.tune.trial import TrialRun, Trials

MAX_TRIALS = 16
"""The number of trials that a report shows, so that it can be mailed.

A trial of speech adds 0.13 MB of sound at most, and one with pictures 0.3 MB more.
"""
LAST = "learning.png"
"""The picture that is drawn last: a run that has it has all of them."""


def shown_in_report(ranked: Sequence[Result]) -> list[Result]:
    """Return all trials if they are few, otherwise those that no other beats, and the worst."""
    finished = [result for result in ranked if result.state == "finished"]
    if len(finished) <= MAX_TRIALS:
        return finished
    return [result for result in finished if result.unbeaten or result is finished[-1]]


def draw_pictures(runs: Sequence[TrialRun], stop: Callable[[], object] = lambda: False) -> None:
    """Draw the pictures of runs until asked to stop."""
    for run in runs:
        if not stop():
            draw_run(run)


def undrawn_runs(trials: Trials, ranked: Sequence[Result]) -> list[TrialRun]:
    """Return the runs of trials that the report shows which have no pictures yet."""
    found = []
    for result in shown_in_report(ranked):
        for run in trials.runs(result.number, result.values):
            if run.evaluated and not (run.evaluation / LAST).exists():
                found.append(run)
    return found


def draw_run(trial_run: TrialRun) -> None:
    """Draw the pictures of a run. A failure is printed; the figures stand."""
    from distvae.tasks.evaluate import write_pictures
    from distvae.train.run import Run

    split = trial_run.trials.space.split
    try:
        write_pictures(Run.open(trial_run.folder), split, trial_run.evaluation)
    except Exception as error:
        print(
            f"{trial_run.folder}: its pictures could not be drawn: {cause(error)}", file=sys.stderr
        )
