"""Judging: every file of a split resynthesised, scored in parallel, and measured for sparsity."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from distvae.config import Config
from distvae.data import audio
from distvae.data.dataset import Recording
from distvae.data.family import HasRecordings, recordings_of
from distvae.files.refusal import Refusal
from distvae.tasks import recording_scores
from distvae.tasks.evaluation import Evaluation, Refused, summarise
from distvae.tasks.images import score_rows
from distvae.tasks.measures import measure_run, refuse_impossible_measures
from distvae.tasks.recording_scores import Scores
from distvae.tasks.resynthesis import Coder, Resynthesis, resynthesise, run_coder
from distvae.tasks.sparsity import CodeStrength, frame_means
from distvae.train.run import Run

Job = tuple[recording_scores.Array, recording_scores.Array, int, list[str]]
WORTH_A_PROCESS = 600.0
"""Seconds of audio, times the measures it is scored by, that take five times the processor time of
starting a process.

Measured: 1.7 s to start one, which imports what it scores by, and 0.013 s to score a second of
audio by one measure.
"""


def score_run(run: Run, split: str = "test", progress: bool = True) -> Evaluation:
    """The scores of a run on a split of the data that its configuration names.

    A script that calls this needs `if __name__ == "__main__"`, unless eval.processes is 1.
    """
    refuse_impossible_measures(run.config)
    judgement = _judged(run, split, progress)
    figures, notes = measure_run(run, split)
    return replace(judgement, summary=judgement.summary | figures, notes=[*judgement.notes, *notes])


def _judged(run: Run, split: str, progress: bool) -> Evaluation:
    if recordings_of(run.config.data) is None:
        return score_rows(run, split)
    return score_recordings(run_coder(run, run.config.eval.latent), run.config, split, progress)


def score_recordings(code: Coder, config: Config, split: str, progress: bool = True) -> Evaluation:
    """The scores of whatever decodes power from power."""
    data = recordings_of(config.data)
    assert data is not None, "only recordings are resynthesised"
    root, chosen = of_split(data, split)
    desk = Desk(code, config, data, root)
    processes = count_processes(
        config, desk.scored, [root / recording.file for recording in chosen]
    )
    scores = list(_watched(side_by_side(map(desk.take, chosen), processes), len(chosen), progress))
    rows = [desk.row(file, score) for file, score in zip(desk.heard, scores, strict=True)]
    refused = [
        Refused(row["file"], name, why)
        for row, score in zip(rows, scores, strict=True)
        for name, why in score.refused.items()
    ]
    return summarise(
        split,
        rows,
        refused,
        desk.atoms(),
        recording_scores.scoring_notes(config.eval.metrics, data.rate),
    )


def of_split(data: HasRecordings, split: str) -> tuple[Path, list[Recording]]:
    """The root of the data and the recordings of one split, or of all."""
    root, found = data.recordings()
    chosen = [recording for recording in found if split in ("all", recording.split)]
    if not chosen:
        raise Refusal(f"{root}: no recording in split '{split}'; train, val, test or all expected")
    return root, chosen


class Desk:
    """Resynthesises recordings one after the other, and keeps what is cheap to say of each."""

    def __init__(self, code: Coder, config: Config, data: HasRecordings, root: Path) -> None:
        self.code, self.data, self.root = code, data, root
        self.metrics = recording_scores.available_metrics(
            recording_scores.recording_metrics(config.eval.metrics)
        )
        self.scored = [name for name in self.metrics if name != "isd"]
        self.heard: list[dict[str, Any]] = []
        self.frames = 0
        self.strength = CodeStrength()

    def take(self, recording: Recording) -> Job:
        """What remains to be done for a recording: scoring its waveform."""
        signal = self.data.load(self.root / recording.file)
        result = resynthesise(self.code, signal, self.data, self.frames)
        own = {
            "file": recording.file,
            "speaker": recording.speaker,
            "seconds": len(signal) / self.data.rate,
        }
        self.heard.append(own | self._cheap(result))
        self.frames += len(result.power)
        return signal, result.signal, self.data.rate, self.scored

    def _cheap(self, result: Resynthesis) -> dict[str, float]:
        found = (
            {"isd": recording_scores.isd(result.power, result.coded.power.numpy())}
            if "isd" in self.metrics
            else {}
        )
        code = result.coded.code
        if code is None:
            return found
        self.strength.see(code)
        return found | frame_means(code, torch.from_numpy(result.power).sum(-1))

    def row(self, own: dict[str, Any], scores: Scores) -> dict[str, Any]:
        """All that is known of a recording, the measures in the order asked for."""
        known = own | scores.values
        order = dict.fromkeys(["file", "speaker", "seconds", *self.metrics, *known])
        return {name: known[name] for name in order}

    def atoms(self) -> dict[str, float]:
        """Live and dead values of the code over all recordings taken."""
        return self.strength.atoms() if self.strength.rows else {}


def count_processes(config: Config, scored: Sequence[str], files: Sequence[Path]) -> int:
    """Return how many processes score files: as many as are asked for, else those that have enough
    to do.
    """
    if config.eval.processes is not None:
        return min(config.eval.processes, len(files))
    seconds = sum(audio.head(file)[1] for file in files)
    worth = int(seconds * len(scored) / WORTH_A_PROCESS)
    return max(1, min(worth, os.cpu_count() or 1, len(files)))


def side_by_side(jobs: Iterable[Job], processes: int) -> Iterator[Scores]:
    """Scores in the order of the jobs, of which only a few are in memory at a time."""
    if processes == 1:
        yield from (recording_scores.score_recording(*job) for job in jobs)
        return
    waiting: deque[Future[Scores]] = deque()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for job in jobs:
            waiting.append(pool.submit(recording_scores.score_recording, *job))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _watched(scores: Iterable[Scores], count: int, progress: bool) -> Iterable[Scores]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not (progress and console.is_terminal)
    return track(scores, "judging", total=count, console=console, transient=True, disable=hidden)
