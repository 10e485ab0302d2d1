"""Judgments of trials while they train: a metric at intervals, kept in each run's folder.

A trial is judged once at each epoch, so that one that is trained again after a crash compares as
before.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from distvae.tune.space import Judge, Space

FILE = "judged.jsonl"
"""The file of a trial's folder with a line for each judgment."""
LEAST_WORTH = -sys.float_info.max
"""The worth of a judgment that is not finite: less than any other of a trial that did not fail."""


def is_judged(judge: Judge | None, epoch: int) -> bool:
    """Return whether trials are judged after an epoch."""
    return judge is not None and epoch > 0 and epoch % judge.interval == 0


def read_judgments(folder: Path) -> dict[int, float]:
    """Return the judgments of a trial by epoch."""
    file = folder / FILE
    lines = file.read_text().splitlines() if file.exists() else []
    records = [json.loads(line) for line in lines]
    return {record["epoch"]: record["value"] for record in records}


def judge_if_due(folder: Path, space: Space, epoch: int) -> bool:
    """Judge a trial after an epoch that it has just trained, if trials are judged after it.

    Return whether they are. What was judged before stays as it was.
    """
    judge = space.judge
    if judge is None or not is_judged(judge, epoch) or _last_epoch(folder) != epoch:
        return False
    if epoch not in (known := read_judgments(folder)):
        _write(folder, judge.metric, known | {epoch: _judge(folder, judge, space.split)})
    return True


def _last_epoch(folder: Path) -> int | None:
    """Return the last epoch that a trial trained itself."""
    from distvae.train.run import read_epochs

    records = read_epochs(folder)
    return int(records[-1]["epoch"]) if records else None


def _judge(folder: Path, judge: Judge, split: str) -> float:
    from distvae.tasks.judging import judge_run

    return judge_run(folder, judge.metric, split, judge.sample)


def _write(folder: Path, metric: str, values: Mapping[int, float]) -> None:
    from distvae.files.output import atomic_file

    lines = [
        json.dumps({"epoch": epoch, "metric": metric, "value": value}) + "\n"
        for epoch, value in values.items()
    ]
    with atomic_file(folder / FILE) as path:
        path.write_text("".join(lines))


def read_worths(folder: Path, space: Space) -> dict[int, float]:
    """Return what a trial was worth whenever it was judged, the more the better.

    A judgment that is not finite is worth `LEAST_WORTH`.
    """
    assert space.judge is not None
    sign = 1 if space.metrics[space.judge.metric] == "max" else -1
    worths = {}
    for epoch, value in read_judgments(folder).items():
        worths[epoch] = sign * value if math.isfinite(value) else LEAST_WORTH
    return worths
