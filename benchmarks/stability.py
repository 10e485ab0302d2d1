"""Measure the share of atoms that two trainings on the same rows have in common.

Two runs of a spike-and-slab model that differ in `train.seed` are compared, and then two top-k
autoencoders of the same size on the same rows, with as many values in a code.
"""

from pathlib import Path

import torch

from benchmarks.output import parser_of, show
from distvae.data import open_dataset
from distvae.data.dataset import Array
from distvae.models.spike_slab import SpikeSlab
from distvae.tasks.topk import TopK
from distvae.tasks.truth import SAME, match_atoms
from distvae.train.run import Run
from distvae.train.run_folder import read_epochs


def topk_atoms(run: Run, seed: int, steps: int) -> Array:
    """Return the atoms of a top-k autoencoder of the rows of a run."""
    rows = open_dataset(run.config.data, quiet=True).splits["train"][:]
    values = max(1, round(read_epochs(run.path)[-1]["active"]))
    scaled = model_of(run).scaled(torch.tensor(rows))
    return TopK.fit(scaled, run.config.model.latent, values, steps, seed).dictionary.numpy()


def model_of(run: Run) -> SpikeSlab:
    """Return the model of a run."""
    assert isinstance(run.model, SpikeSlab)
    return run.model


def main() -> None:
    """Print the share for the runs and for the autoencoders."""
    parser = parser_of("stability", __doc__)
    parser.add_argument("runs", nargs=2, type=Path, help="folders of the runs")
    parser.add_argument("--steps", type=int, default=5000, help="steps of an autoencoder")
    parsed = parser.parse_args()
    runs = [Run.open(path) for path in parsed.runs]
    learned = {
        "ssc": [model_of(run).dictionary.numpy() for run in runs],
        "topk": [topk_atoms(runs[0], seed, parsed.steps) for seed in (0, 1)],
    }
    for name, (first, second) in learned.items():
        share = float((match_atoms(first, second) > SAME).mean())
        show(parsed, {"model": name, "common": share}, f"{name}: {share:.3f} of atoms in common")


if __name__ == "__main__":
    main()
