"""Scores of a run on a split. Every recording is resynthesised, and other processes score it."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch

from distvae.config import Config
from distvae.data import audio
from distvae.data.dataset import Recording
from distvae.data.family import HasRecordings, recordings_of
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.system import available_cores
from distvae.tasks.evaluation import Evaluation, Refused, summarise
from distvae.tasks.images import score_rows
from distvae.tasks.measures import measure_run, refuse_impossible_measures
from distvae.tasks.recording_scores import (
    Array,
    Scores,
    available_metrics,
    isd,
    recording_metrics,
    score_recording,
    scoring_notes,
)
from distvae.tasks.resynthesis import Coder, Resynthesis, resynthesise, run_coder
from distvae.tasks.sparsity import CodeStrength, frame_means
from distvae.tasks.waiting import with_news
from distvae.train.run import Run

Job = tuple[Array, Array, int, list[str]]
"""The arguments of `score_recording`."""
WORTH_A_PROCESS = 600.0
"""Seconds of audio, times the number of measures, that justify another process.

Scoring them takes five times as long as starting a process. Measured: 1.7 s to start a process,
which imports the measures, and 0.013 s to score a second of audio by one measure.
"""


def score_run(
    run: Run, split: str = "test", progress: bool = True, sample: int | None = None
) -> Evaluation:
    """Return the scores of a run on a split of the data that its configuration names.

    With `sample`, only this number of rows or recordings is scored, the same ones in every call.
    The measures in `MEASURES` and the comparison of a restoration do not depend on `sample`. A
    script that calls this function needs `if __name__ == "__main__"`, unless eval.processes is 1.
    """
    refuse_impossible_measures(run.config)
    if recordings_of(run.config.data) is None:
        evaluation = score_rows(run, split, sample, progress)
    else:
        code = run_coder(run, run.config.eval.latent)
        evaluation = score_recordings(code, run.config, split, progress, sample)
    figures, notes = measure_run(run, split, progress)
    summary, notes = evaluation.summary | figures, [*evaluation.notes, *notes]
    return replace(evaluation, summary=summary, notes=notes)


def score_recordings(
    code: Coder, config: Config, split: str, progress: bool = True, sample: int | None = None
) -> Evaluation:
    """Return the scores of a coder on the recordings of a split. With `sample`, score this number
    of recordings, spread evenly over the split.
    """
    data = recordings_of(config.data)
    assert data is not None, "only recordings are resynthesised"
    root, chosen = recordings_of_split(data, split)
    if sample is not None:
        count = min(sample, len(chosen))
        chosen = [chosen[i * len(chosen) // count] for i in range(count)]
    resynthesiser = Resynthesiser(code, config, data, root)
    files = [root / recording.file for recording in chosen]
    processes = count_processes(config, resynthesiser.scored, files)
    jobs = map(resynthesiser.job_for, chosen)
    scores = list(
        with_news(score_in_order(jobs, processes), len(chosen), "scoring recordings", progress)
    )
    rows = []
    refused = []
    for row, score in zip(resynthesiser.rows, scores, strict=True):
        rows.append(resynthesiser.complete_row(row, score))
        for measure, reason in score.refused.items():
            refused.append(Refused(str(row["file"]), measure, reason))
    notes = scoring_notes(config.eval.metrics, data.rate)
    return summarise(split, rows, refused, resynthesiser.count_atoms(), notes)


def recordings_of_split(data: HasRecordings, split: str) -> tuple[Path, list[Recording]]:
    """Return the root of the data, and the recordings of one split or of all splits."""
    root, found = data.recordings()
    chosen = [recording for recording in found if split in ("all", recording.split)]
    if not chosen:
        raise Refusal(f"{root}: no recording in split '{split}'; train, val, test or all expected")
    return root, chosen


class Resynthesiser:
    """Resynthesises recordings one by one, and computes the cheap scores."""

    def __init__(self, code: Coder, config: Config, data: HasRecordings, root: Path) -> None:
        self.code, self.data, self.root = code, data, root
        self.whole = config.eval.recordings == "whole"
        measures = recording_metrics(config.eval.metrics)
        self.measures = available_metrics(measures)
        self.scored = [name for name in self.measures if name != "isd"]
        self.rows: list[dict[str, Plain]] = []
        self.frames = 0
        self.strength = CodeStrength()

    def job_for(self, recording: Recording) -> Job:
        """Resynthesise a recording, and return the arguments that score its waveform."""
        signal = self._load(self.root / recording.file)
        result = resynthesise(self.code, signal, self.data, self.frames)
        row: dict[str, Plain] = {
            "file": recording.file,
            "speaker": recording.speaker,
            "seconds": len(signal) / self.data.rate,
        }
        self.rows.append({**row, **self._score_spectrum(result)})
        self.frames += len(result.power)
        return signal, result.signal, self.data.rate, self.scored

    def _load(self, path: Path) -> Array:
        return self.data.load_whole(path)[0] if self.whole else self.data.load(path)

    def _score_spectrum(self, result: Resynthesis) -> dict[str, float]:
        """Return the scores of power and code."""
        scores: dict[str, float] = {}
        if "isd" in self.measures:
            scores["isd"] = isd(result.power, result.coded.power.numpy())
        code = result.coded.code
        if code is not None:
            self.strength.add(code)
            scores |= frame_means(code, torch.from_numpy(result.power).sum(-1))
        return scores

    def complete_row(self, row: dict[str, Plain], scores: Scores) -> dict[str, Plain]:
        """Return the row with all its scores, in the requested order."""
        complete = {**row, **scores.values}
        order = dict.fromkeys(["file", "speaker", "seconds", *self.measures, *complete])
        return {name: complete[name] for name in order}

    def count_atoms(self) -> dict[str, float]:
        """Return the numbers of live and dead atoms over all recordings."""
        return self.strength.count_atoms() if self.strength.rows else {}


def count_processes(config: Config, scored: Sequence[str], files: Sequence[Path]) -> int:
    """Return the requested number of scoring processes, or else a number that suits the work."""
    if config.eval.processes is not None:
        return min(config.eval.processes, len(files))
    seconds = sum(audio.head(file)[1] for file in files)
    worthwhile = int(seconds * len(scored) / WORTH_A_PROCESS)
    return max(1, min(worthwhile, available_cores(), len(files)))


def score_in_order(jobs: Iterable[Job], processes: int) -> Iterator[Scores]:
    """Yield the scores of jobs in order. Only a few jobs are in memory at a time."""
    if processes == 1:
        for job in jobs:
            yield score_recording(*job)
        return
    pending: deque[Future[Scores]] = deque()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for job in jobs:
            pending.append(pool.submit(score_recording, *job))
            if len(pending) > 2 * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
