"""Scores of a run on images, windows or other rows: bound, error and sparsity over a split."""

import math

import numpy as np
import torch

from distvae.data import open_dataset
from distvae.data.dataset import Array, Rows, stack
from distvae.data.family import windows_of
from distvae.interface import Batch, Posterior, Sums
from distvae.models.tvae import TVAE
from distvae.numerics.metrics import effective_atoms
from distvae.numerics.noise import VALIDATION, Noise, order
from distvae.tasks.evaluation import Evaluation
from distvae.tasks.restoration import score_restored_run
from distvae.tasks.resynthesis import decode_posterior
from distvae.tasks.sparsity import CodeStrength
from distvae.tasks.truth import compare_with_truth
from distvae.tasks.waiting import with_news
from distvae.train.batches import BLOCK
from distvae.train.run import Run
from distvae.train.step import add, assess

SAMPLED = 0
"""The seed that draws a sample of rows. It does not depend on the seed of the run."""


@torch.inference_mode()
def score_rows(
    run: Run, split: str, sample: int | None = None, progress: bool = False
) -> Evaluation:
    """Return means over the rows of a split: bound, objective (nats) and squared error per value.

    With `sample`, the means are over this number of rows, which are the same in every call. A run
    that corrupted its data before restoring them is also compared with the clean reference.
    """
    rows = _sampled(load_rows(run, split), sample)
    total: Sums = {}
    strength = CodeStrength()
    starts = range(0, len(rows), BLOCK)
    for start in with_news(starts, len(starts), "scoring blocks of rows", progress):
        x = torch.tensor(rows[start : start + BLOCK])
        row = torch.arange(start, start + len(x))
        noise = Noise(run.config.train.seed, VALIDATION, row)
        q = run.posterior(x, row)
        strength.add(q.code)
        add(total, assess(run.model, q, Batch.of(x, row), noise))
        add(total, _score_block(run, q, x, row))
    sparse, observed = total.pop("sparse_rows"), total.pop("observed_rows")
    counts = {"hoyer": sparse, "effective_atoms": sparse, "squared_error": observed}
    summary = {f"{run.info['unit']}s": float(len(rows))}
    for name, value in total.items():
        summary[name] = float(value / counts.get(name, len(rows)))
    restoration, notes = score_restored_run(run)
    summary |= strength.count_atoms() | _active(run) | restoration
    summary |= compare_with_truth(run, rows)
    return Evaluation(split, summary, notes=notes)


def _sampled(rows: Rows, sample: int | None) -> Rows:
    """Return a sample of rows, or all rows if there are not more."""
    if sample is None or len(rows) <= sample:
        return rows
    return rows[np.sort(order(SAMPLED, 0, len(rows))[:sample])]


def _active(run: Run) -> dict[str, float]:
    """Return the expected number of active binary latents under the prior."""
    return {"active": float(run.model.pi.sum())} if isinstance(run.model, TVAE) else {}


def load_rows(run: Run, split: str) -> Rows:
    """Return the rows of one split, or of all splits, of a run's data."""
    dataset = open_dataset(run.config.data, quiet=True)
    return stack([dataset.splits[name] for name in dataset.split_names(split)])


def as_images(rows: Array, run: Run) -> Array:
    """Return image rows (N, D) as (N, height, width, channels), and other rows, for example sounds,
    as (N, values, channels).
    """
    return np.moveaxis(rows.reshape(len(rows), *(run.shape or _likely_shape(run))), 1, -1)


def _likely_shape(run: Run) -> tuple[int, ...]:
    """Return a shape for data without a shape, and for runs that did not record their shape: a
    square picture if the number of values is a square.
    """
    windows = windows_of(run.config.data)
    if windows is not None:
        return -1, *windows.window
    side = math.isqrt(run.dims)
    return (1, side, side) if side * side == run.dims else (1, run.dims)


def _score_block(run: Run, q: Posterior, x: torch.Tensor, row: torch.Tensor) -> Sums:
    """Return sums over a block of rows."""
    error = (decode_posterior(run, q, row, run.config.eval.latent) - x).square()
    return {
        "squared_error": error.nanmean(-1).nansum(),
        "observed_rows": (~x.isnan()).any(-1).sum(),
        "effective_atoms": effective_atoms(q.code).nansum(),
    }
