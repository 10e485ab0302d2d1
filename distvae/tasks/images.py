"""Judging a run on images: bound, error and sparsity over a split."""

import torch

from distvae.data import open_dataset
from distvae.interface import Batch, Posterior, expect
from distvae.measures import effective_atoms
from distvae.noise import JUDGEMENT, VALIDATION, Noise
from distvae.refusal import Refusal, nearest
from distvae.tasks.judgement import Judgement
from distvae.tasks.sparsity import Strength
from distvae.train.loop import BLOCK
from distvae.train.run import Array, Run
from distvae.train.step import Sums, add, assess


@torch.inference_mode()
def judge_images(run: Run, split: str) -> Judgement:
    """Means over the images of a split: bound and objective in nats per image, squared error per pixel."""
    images = images_of(run, split)
    total: Sums = {}
    strength = Strength()
    for start in range(0, len(images), BLOCK):
        x = torch.tensor(images[start : start + BLOCK])
        row = torch.arange(start, start + len(x))
        noise = Noise(run.config.train.seed, VALIDATION, row)
        q = run.posterior(x, row)
        add(total, assess(run.model, q, Batch(x, row), noise) | _judge_block(run, q, x, row, strength))
    sparse = total.pop("sparse_rows")
    means = {
        name: float(value / (sparse if name in ("hoyer", "effective_atoms") else len(images)))
        for name, value in total.items()
    }
    return Judgement(split, {"images": float(len(images))} | means | strength.atoms())


def images_of(run: Run, split: str) -> Array:
    """The images of a split of the data that a run's configuration names."""
    splits = open_dataset(run.config.data, quiet=True).splits
    if split not in splits:
        raise Refusal(f"no split '{split}'; {nearest(split, splits)}")
    return splits[split]


def _judge_block(run: Run, q: Posterior, x: torch.Tensor, row: torch.Tensor, strength: Strength) -> Sums:
    draws, noise = (
        (1, Noise(run.config.train.seed, JUDGEMENT, row)) if run.config.eval.latent == "sample" else (0, None)
    )
    strength.see(q.code)
    error = (expect(q, run.model.decode, draws, noise) - x).square()
    return {"squared_error": error.mean(-1).sum(), "effective_atoms": effective_atoms(q.code).nansum()}
