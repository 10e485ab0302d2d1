"""Judging a run on images or windows: bound, error and sparsity over a split."""

import math

import numpy as np
import torch

from distvae.data import open_dataset
from distvae.data.dataset import Rows, stack
from distvae.data.family import windows_of
from distvae.interface import Batch, Posterior, Sums, expect
from distvae.models.tvae import TVAE
from distvae.numerics.measures import effective_atoms
from distvae.numerics.noise import EVALUATION, VALIDATION, Noise
from distvae.tasks.evaluation import Evaluation
from distvae.tasks.restoration import score_restored_run
from distvae.tasks.sparsity import CodeStrength
from distvae.tasks.truth import compare_with_truth
from distvae.train.loop import BLOCK
from distvae.train.run import Array, Run
from distvae.train.step import add, assess


@torch.inference_mode()
def score_rows(run: Run, split: str) -> Evaluation:
    """Means over the data points of a split: bound and objective in nats for each, squared error
    per value.

    A run that removes noise of its own making is also compared with what was clean.
    """
    images = load_rows(run, split)
    total: Sums = {}
    strength = CodeStrength()
    for start in range(0, len(images), BLOCK):
        x = torch.tensor(images[start : start + BLOCK])
        row = torch.arange(start, start + len(x))
        noise = Noise(run.config.train.seed, VALIDATION, row)
        q = run.posterior(x, row)
        add(
            total,
            assess(run.model, q, Batch.of(x, row), noise) | _judge_block(run, q, x, row, strength),
        )
    sparse = total.pop("sparse_rows")
    means = {
        name: float(value / (sparse if name in ("hoyer", "effective_atoms") else len(images)))
        for name, value in total.items()
    }
    restored, notes = score_restored_run(run)
    told = restored | compare_with_truth(run, images[:])
    summary = (
        {f"{run.info['unit']}s": float(len(images))}
        | means
        | strength.atoms()
        | _active(run)
        | told
    )
    return Evaluation(split, summary, notes=notes)


def _active(run: Run) -> dict[str, float]:
    """Binary latents that are active on average, by the prior that training came to."""
    return {"active": float(run.model.pi.sum())} if isinstance(run.model, TVAE) else {}


def load_rows(run: Run, split: str) -> Rows:
    """The rows of a split, or of all, of the data that a run's configuration names."""
    dataset = open_dataset(run.config.data, quiet=True)
    return stack([dataset.splits[name] for name in dataset.named(split)])


def as_images(rows: Array, run: Run) -> Array:
    """(N, D) -> (N, height, width, channels) of pictures, (N, samples, channels) of sounds."""
    return np.moveaxis(rows.reshape(len(rows), *(run.shape or _likely_shape(run))), 1, -1)


def _likely_shape(run: Run) -> tuple[int, ...]:
    """That of data without one, and of runs from before it was written down."""
    windows = windows_of(run.config.data)
    if windows is not None:
        return -1, *windows.window
    height = next(side for side in range(math.isqrt(run.dims), 0, -1) if run.dims % side == 0)
    return 1, height, run.dims // height


def _judge_block(
    run: Run, q: Posterior, x: torch.Tensor, row: torch.Tensor, strength: CodeStrength
) -> Sums:
    draws, noise = (
        (1, Noise(run.config.train.seed, EVALUATION, row))
        if run.config.eval.latent == "sample"
        else (0, None)
    )
    strength.see(q.code)
    error = (expect(q, run.model.decode, draws, noise) - x).square()
    return {
        "squared_error": error.nanmean(-1).nansum(),
        "effective_atoms": effective_atoms(q.code).nansum(),
    }
