"""Baselines that learn a dictionary: a top-k autoencoder, which is told how many atoms a row has,
and scikit-learn's dictionary learning. Both are told the number of atoms.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from distvae.config import AtomsData, Config, Train
from distvae.data import open_dataset
from distvae.data.dataset import Array, Rows
from distvae.data.generated import AtomsFamily
from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal
from distvae.tasks.topk import TopK
from distvae.tasks.truth import compare_with_atoms

PENALTY = 0.1
"""The weight of the L1 norm."""
Learned = tuple[Array, Callable[[Rows], Array]]
"""Atoms (H, D), and a function of rows that returns their codes (N, H)."""


def learn_topk(rows: Tensor, train: Train, data: AtomsData) -> Learned:
    """Train a top-k autoencoder for as many steps as `train.epochs` have."""
    steps = train.epochs * -(-len(rows) // train.batch)
    model = TopK.fit(rows, data.atoms, data.active, steps, train.seed)
    return model.dictionary.numpy(), lambda rows: model.encode(torch.from_numpy(rows[:])).numpy()


def learn_lasso(rows: Tensor, train: Train, data: AtomsData) -> Learned:
    """Learn a dictionary with positive codes by scikit-learn's `MiniBatchDictionaryLearning`."""
    refuse_missing("lasso", "sklearn")
    from sklearn.decomposition import MiniBatchDictionaryLearning
    from sklearn.exceptions import ConvergenceWarning

    # a row of the lasso counts as not converged if its gap is above 1e-4 of its squared norm
    warnings.simplefilter("ignore", ConvergenceWarning)
    learning = MiniBatchDictionaryLearning(
        data.atoms,
        alpha=PENALTY,
        max_iter=train.epochs,
        batch_size=train.batch,
        fit_algorithm="cd",
        transform_algorithm="lasso_cd",
        positive_code=True,
        random_state=train.seed,
    ).fit(rows.double().numpy())
    return learning.components_, lambda rows: learning.transform(rows[:].astype(np.float64))


LEARNERS: dict[str, Callable[[Tensor, Train, AtomsData], Learned]] = {
    "topk": learn_topk,
    "lasso": learn_lasso,
}


def score_dictionary(name: str, config: Config, data: AtomsFamily) -> dict[str, float]:
    """Learn a dictionary from the training rows, and compare it with the known atoms."""
    if name not in LEARNERS:
        raise Refusal(f"{name}: no method for data of known atoms; {', '.join(LEARNERS)} expected")
    rows = torch.from_numpy(open_dataset(config.data, quiet=True).splits["train"][:])
    atoms, encode = LEARNERS[name](rows, config.train, data.config)
    return compare_with_atoms(atoms, encode, data)
