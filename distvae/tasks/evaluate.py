"""Evaluation of a trained run on a split: scores, tables, pictures and a resynthesised recording.

Every recording is resynthesised here, and other processes score it. Images, windows and other rows
are scored by blocks.
"""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from distvae.config import Config
from distvae.data import audio
from distvae.data.dataset import Array, Recording
from distvae.data.speech import recordings_of
from distvae.files.paths import atomic_file, prepare_folder
from distvae.files.untrusted import Plain, finite
from distvae.interface import Batch, Sums
from distvae.models.posteriors import active_code
from distvae.models.tvae import TVAE
from distvae.numerics.metrics import declare, effective_atoms, hoyer, live_atoms
from distvae.numerics.noise import VALIDATION, Noise, order
from distvae.system import available_cores
from distvae.tasks import pictures
from distvae.tasks.measures import MEASURES, Subject, measures_for, refuse_impossible_measures
from distvae.tasks.restoration import score_restored_run
from distvae.tasks.resynthesis import (
    Coder,
    decode_posterior,
    recordings_of_split,
    resynthesise,
    run_coder,
    write_sound,
)
from distvae.tasks.run_pictures import DRAWN, load_rows, pictures_of
from distvae.tasks.scores import (
    Scores,
    available_metrics,
    isd,
    recording_metrics,
    score_recording,
    scoring_notes,
)
from distvae.tasks.truth import compare_with_truth
from distvae.train.batches import BLOCK
from distvae.train.loop import FIGURES_OF_TRAINING
from distvae.train.progress import format_duration
from distvae.train.run import Run
from distvae.train.run_folder import read_epochs
from distvae.train.session import run_arithmetic
from distvae.train.step import add, assess

if TYPE_CHECKING:
    from pandas import DataFrame, Series

declare("sparsity", "dead_atoms")
Job = tuple[Array, Array, int, list[str]]
"""The arguments of `score_recording`."""
T = TypeVar("T")
TABLES = tuple(
    f"{name}.{kind}" for name in ("files", "speakers", "refused") for kind in ("csv", "parquet")
)
"""The files of the tables of an evaluation of recordings."""
SOUNDS = ("original", "reconstruction")
"""A recording and its resynthesis."""
WORTH_A_PROCESS = 600.0
"""Seconds of audio, times the number of measures, that justify another process.

Scoring them takes five times as long as starting a process. Measured: 1.7 s to start a process,
which imports the measures, and 0.013 s to score a second of audio by one measure.
"""
SAMPLED = 0
"""The seed that draws a sample of rows. It does not depend on the seed of the run."""
ACTIVE = 1e-3
"""Frames within 30 dB of the loudest of their file are active."""
LINE_SECONDS = 10.0
"""Seconds between two lines of progress without a terminal."""


class Refused(NamedTuple):
    """A file that a measure could not score."""

    file: str
    metric: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """The scores of a split."""

    split: str
    summary: dict[str, float]
    """Means over files, their standard deviation over speakers (`_std`), the number of files that
    a measure refused (`_refused`), and the numbers of live and dead atoms.
    """
    files: "DataFrame | None" = None
    speakers: "DataFrame | None" = None
    """Mean and standard deviation (`_std`) of each column over the files of a speaker."""
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Remarks on how the scores were computed."""

    def save(self, folder: Path) -> None:
        """Write the tables (CSV, Parquet) and the summary (JSON) into an existing folder."""
        tables = {"files": self.files, "speakers": self.speakers}
        if self.files is not None:
            import pandas

            tables["refused"] = pandas.DataFrame(self.refused, columns=list(Refused._fields))
        for name, table in tables.items():
            if table is not None:
                with atomic_file(folder / f"{name}.csv") as path:
                    table.to_csv(path, index=False, float_format="%.6g")
                with atomic_file(folder / f"{name}.parquet") as path:
                    table.to_parquet(path, index=False)
        with atomic_file(folder / "summary.json") as path:
            path.write_text(json.dumps(finite(self.summary), indent=2) + "\n")


def evaluate(
    run: Run,
    target: Path | None = None,
    split: str = "test",
    force: bool = False,
    progress: bool = True,
    with_pictures: bool = True,
) -> Evaluation:
    """Score a run on a split, and write tables, sounds and pictures.

    The files go into `evaluation/SPLIT` of the run folder unless another folder is given. Files of
    an earlier evaluation there are removed. A folder without a summary keeps all its files.
    """
    folder = target or run.path / "evaluation" / split
    prepare_folder(folder, force)
    with run_arithmetic(run.info):
        evaluation = score_run(run, split, progress)
        if (folder / "summary.json").exists():
            sounds, drawn = [f"{name}.wav" for name in SOUNDS], [f"{name}.png" for name in DRAWN]
            for name in (*TABLES, *sounds, *drawn):
                (folder / name).unlink(missing_ok=True)
        evaluation.save(folder)
        _write_sounds(run, split, folder)
    if with_pictures:
        announce("drawing pictures", progress)
        write_pictures(run, split, folder)
    return evaluation


def _write_sounds(run: Run, split: str, folder: Path) -> None:
    """Write the first recording of a split and its resynthesis, if the data are recordings."""
    data = recordings_of(run.config.data)
    if data is None:
        return
    root, chosen = recordings_of_split(data, split)
    signal = data.load(root / chosen[0].file)
    result = resynthesise(run_coder(run, run.config.eval.latent), signal, data)
    for name, sound in zip(SOUNDS, (signal, result.signal), strict=True):
        write_sound(folder / f"{name}.wav", sound, data.rate)


def write_pictures(run: Run, split: str, folder: Path) -> None:
    """Draw the pictures of a run into a folder."""
    with run_arithmetic(run.info):
        for name, figure in pictures_of(run, split):
            pictures.save(figure, folder / f"{name}.png")


def judge_run(folder: Path, figures: Sequence[str], split: str, sample: int) -> dict[str, float]:
    """Return metrics of a run's last state, on a sample of a split."""
    found = {name: read_epochs(folder)[-1].get(name, math.nan) for name in figures}
    asked = [name for name in figures if name not in FIGURES_OF_TRAINING]
    if asked:
        run = Run.open(folder, "last")
        measures = measures_for(asked, run.config.eval.metrics)
        run.config = run.config.with_("eval", metrics=measures, processes=1)
        with run_arithmetic(run.info):
            summary = score_run(run, split, progress=False, sample=sample).summary
        found |= {name: summary.get(name, math.nan) for name in asked}
    return found


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
    subject, summary = Subject(run, split), evaluation.summary
    for name in run.config.eval.metrics:
        if name in MEASURES:
            announce(f"measuring {name}", progress)
            summary = summary | MEASURES[name].measure(subject)
    return replace(evaluation, summary=summary, notes=[*evaluation.notes, *subject.notes])


@torch.inference_mode()
def score_rows(
    run: Run, split: str, sample: int | None = None, progress: bool = False
) -> Evaluation:
    """Return means over the rows of a split: bound, objective (nats) and squared error per value.

    With `sample`, the means are over this number of rows, which are the same in every call. A run
    that corrupted its data before restoring them is also compared with the clean reference.
    """
    rows = load_rows(run, split)
    if sample is not None and len(rows) > sample:
        rows = rows[np.sort(order(SAMPLED, 0, len(rows))[:sample])]
    total: Sums = {}
    strength = CodeStrength()
    starts = range(0, len(rows), BLOCK)
    for start in with_news(starts, len(starts), "scoring blocks of rows", progress):
        x = torch.tensor(rows[start : start + BLOCK])
        row = torch.arange(start, start + len(x))
        q = run.posterior(x, row)
        is_active = run.config.eval.latent == "active"
        code = active_code(q) if is_active else q.code
        strength.add(code)
        noise = Noise(run.config.train.seed, VALIDATION, row)
        sums = assess(run.model, q, Batch.of(x, row), noise)
        if is_active:
            sparsity = hoyer(code)
            sums |= {"hoyer": sparsity.nansum(), "sparse_rows": sparsity.isfinite().sum()}
        add(total, sums)
        error = (decode_posterior(run, q, row, run.config.eval.latent) - x).square()
        add(
            total,
            {
                "squared_error": error.nanmean(-1).nansum(),
                "observed_rows": (~x.isnan()).any(-1).sum(),
                "effective_atoms": effective_atoms(code).nansum(),
                "active": (code != 0).sum(),
            },
        )
    sparse, observed = total.pop("sparse_rows"), total.pop("observed_rows")
    counts = {"hoyer": sparse, "effective_atoms": sparse, "squared_error": observed}
    summary = {f"{run.info['unit']}s": float(len(rows))}
    for name, value in total.items():
        summary[name] = float(value / counts.get(name, len(rows)))
    summary |= strength.figures()
    if isinstance(run.model, TVAE):
        summary["active"] = float(run.model.pi.sum())
    restoration, notes = score_restored_run(run)
    summary |= restoration | compare_with_truth(run, rows)
    return Evaluation(split, summary, notes=notes)


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
    measures = available_metrics(recording_metrics(config.eval.metrics))
    scored = [name for name in measures if name != "isd"]
    rows: list[dict[str, Plain]] = []
    strength = CodeStrength()

    def resynthesised(recordings: Iterable[Recording]) -> Iterator[Job]:
        """Yield the arguments that score each waveform. Score power and code at once."""
        frames = 0
        for recording in recordings:
            path = root / recording.file
            is_whole = config.eval.recordings == "whole"
            signal = data.load_whole(path)[0] if is_whole else data.load(path)
            result = resynthesise(code, signal, data, frames)
            frames += len(result.power)
            row: dict[str, Plain] = {"file": recording.file, "speaker": recording.speaker}
            row["seconds"] = len(signal) / data.rate
            if "isd" in measures:
                row["isd"] = isd(result.power, result.coded.power.numpy())
            if result.coded.code is not None:
                strength.add(result.coded.code)
                row |= frame_means(result.coded.code, torch.from_numpy(result.power).sum(-1))
            rows.append(row)
            yield signal, result.signal, data.rate, scored

    processes = count_processes(config, scored, [root / recording.file for recording in chosen])
    scores = _score_in_order(resynthesised(chosen), processes)
    found = list(with_news(scores, len(chosen), "scoring recordings", progress))
    complete, refused = [], []
    for row, score in zip(rows, found, strict=True):
        values = row | score.values
        names = dict.fromkeys(["file", "speaker", "seconds", *measures, *values])
        complete.append({name: values[name] for name in names})
        for measure, reason in score.refused.items():
            refused.append(Refused(str(row["file"]), measure, reason))
    notes = scoring_notes(config.eval.metrics, data.rate)
    atoms = strength.figures() if strength.used.dim() else {}
    return _summarise(split, complete, refused, atoms, notes)


def _summarise(
    split: str,
    rows: Sequence[Mapping[str, Plain]],
    refused: list[Refused],
    atoms: dict[str, float],
    notes: list[str],
) -> Evaluation:
    """Return the evaluation of files; a row has the file, its speaker, and numbers."""
    import pandas

    def numbers(figures: "Series[float]") -> dict[str, float]:
        return {str(name): float(value) for name, value in figures.items()}

    files = pandas.DataFrame(list(rows))
    by_speaker = files.drop(columns="file").groupby("speaker")
    mean, spread = by_speaker.mean(), by_speaker.std()
    speakers = mean.join(spread.add_suffix("_std")).assign(files=by_speaker.size()).reset_index()
    summary = {"files": float(len(files))}
    summary |= numbers(files.drop(columns=["file", "speaker"]).mean())
    summary |= numbers(mean.drop(columns="seconds").std().add_suffix("_std"))
    for refusal in refused:
        name = f"{refusal.metric}_refused"
        summary[name] = summary.get(name, 0.0) + 1
    return Evaluation(split, summary | atoms, files, speakers, refused, notes)


def count_processes(config: Config, scored: Sequence[str], files: Sequence[Path]) -> int:
    """Return the requested number of scoring processes, or else a number that suits the work."""
    if config.eval.processes is not None:
        return min(config.eval.processes, len(files))
    seconds = sum(audio.head(file)[1] for file in files)
    worthwhile = int(seconds * len(scored) / WORTH_A_PROCESS)
    return max(1, min(worthwhile, available_cores(), len(files)))


def _score_in_order(jobs: Iterable[Job], processes: int) -> Iterator[Scores]:
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


def frame_means(code: Tensor, energy: Tensor) -> dict[str, float]:
    """Return means over the frames of a file: of sparsity, except frames whose code is zero, and of
    the number of values that are not zero.
    """
    sparsity = hoyer(code)
    is_active = energy >= ACTIVE * energy.max()
    return {
        "hoyer": float(sparsity.nanmean()),
        "hoyer_active": float(sparsity[is_active].nanmean()),
        "effective_atoms": float(effective_atoms(code).nanmean()),
        "active": float((code != 0).sum(1).double().mean()),
    }


SCALED = 64
"""Rows of each block, or frames of each recording, whose sparsity on a common scale is taken."""


class CodeStrength:
    """How strong each value of the codes of a split is, gathered block by block."""

    def __init__(self) -> None:
        self.squares, self.used = torch.zeros(2)
        self.sample: list[Tensor] = []

    def add(self, code: Tensor) -> None:
        """Include the codes of some more rows."""
        self.squares = self.squares + code.double().square().sum(0)
        self.used = self.used + (code != 0).sum(0)
        self.sample.append(code[:: max(1, len(code) // SCALED)])

    def figures(self) -> dict[str, float]:
        """Return the numbers of live and dead values of the code, and the sparsity of live values
        on a common scale.
        """
        live = live_atoms((self.squares / self.used.clamp_min(1)).sqrt()[None])
        figures = {"live_atoms": float(live.sum()), "dead_atoms": float((~live).sum())}
        if figures["live_atoms"]:
            scaled = torch.cat(self.sample)[:, live] / self.squares[live].sqrt()
            figures["hoyer_scaled"] = float(hoyer(scaled).nanmean())
        return figures


def announce(what: str, wanted: bool) -> None:
    """Print the name of the next piece of work."""
    if wanted:
        print(what, file=sys.stderr, flush=True)


def with_news(items: Iterable[T], count: int, what: str, wanted: bool) -> Iterable[T]:
    """Yield the items. Show the number of finished items and the remaining time: in a bar on a
    terminal, otherwise in an occasional line.
    """
    if wanted and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        yield from track(items, what, total=count, console=console, transient=True)
        return
    began = told = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if wanted and now - told >= LINE_SECONDS and done < count:
            told = now
            left = format_duration((now - began) / done * (count - done))
            announce(f"{what}: {done:,} of {count:,}, {left} left", wanted)
