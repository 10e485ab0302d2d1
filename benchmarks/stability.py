"""Measure the share of atoms that two trainings on known atoms have in common.

Two runs of `distvae train atoms-ssc` that differ in `train.seed` are compared, and then two top-k
autoencoders of the same size on the same rows.
"""

from pathlib import Path

import torch

from benchmarks.output import parser_of, show
from distvae.config import AtomsData
from distvae.data import open_dataset
from distvae.data.dataset import Array
from distvae.models.spike_slab import SpikeSlab
from distvae.tasks.dictionaries import learn_topk
from distvae.tasks.truth import SAME, match_atoms
from distvae.train.run import Run


def topk_atoms(run: Run, seed: int, epochs: int) -> Array:
    """Return the atoms of a top-k autoencoder of the rows of a run."""
    config = run.config.with_("train", seed=seed, epochs=epochs, batch=250)
    assert isinstance(config.data, AtomsData)
    rows = torch.from_numpy(open_dataset(config.data, quiet=True).splits["train"][:])
    return learn_topk(rows, config.train, config.data)[0]


def atoms_of(run: Run) -> Array:
    """Return the atoms of a run."""
    assert isinstance(run.model, SpikeSlab)
    return run.model.dictionary.detach().numpy()


def main() -> None:
    """Print the share for the runs and for the autoencoders."""
    parser = parser_of("stability", __doc__)
    parser.add_argument("runs", nargs=2, type=Path, help="folders of the runs")
    parser.add_argument("--epochs", type=int, default=500, help="epochs of an autoencoder")
    parsed = parser.parse_args()
    runs = [Run.open(path) for path in parsed.runs]
    learned = {
        "ssc": [atoms_of(run) for run in runs],
        "topk": [topk_atoms(runs[0], seed, parsed.epochs) for seed in (0, 1)],
    }
    for name, (first, second) in learned.items():
        share = float((match_atoms(first, second) > SAME).mean())
        show(parsed, {"model": name, "common": share}, f"{name}: {share:.3f} of atoms in common")


if __name__ == "__main__":
    main()
