"""Baselines that learn a dictionary: a top-k autoencoder, which is told how many atoms a row has,
and scikit-learn's dictionary learning. Both are told the number of atoms.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from distvae.config import AtomsData, Config, Train
from distvae.data import open_dataset
from distvae.data.dataset import Array, Rows
from distvae.data.generated import AtomsFamily
from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal
from distvae.tasks.truth import compare_with_atoms

PENALTY = 0.1
"""The weight of the L1 norm."""
Learned = tuple[Array, Callable[[Rows], Array]]
"""Atoms (H, D), and a function of rows that returns their codes (N, H)."""


class TopK(nn.Module):
    """An autoencoder whose codes keep their largest values (Makhzani and Frey, 2014; Gao et al.,
    2024).
    """

    def __init__(self, dims: int, latent: int, active: int) -> None:
        super().__init__()
        self.active = active
        self.encoder, self.decoder = nn.Linear(dims, latent), nn.Linear(latent, dims)
        with torch.no_grad():
            self.decoder.weight.copy_(functional.normalize(self.encoder.weight.T, dim=0))
            self.encoder.weight.copy_(self.decoder.weight.T)
            self.decoder.bias.zero_()

    def encode(self, x: Tensor) -> Tensor:
        """Return codes (B, H) with the largest positive values and zeros."""
        value, place = (self.encoder(x - self.decoder.bias)).relu().topk(self.active)
        return x.new_zeros(len(x), self.decoder.in_features).scatter(1, place, value)


def learn_topk(rows: Tensor, train: Train, data: AtomsData) -> Learned:
    """Train a top-k autoencoder by Adam, with atoms of norm 1, for `train.epochs`."""
    torch.manual_seed(train.seed)
    model = TopK(data.dims, data.atoms, data.active)
    adam = torch.optim.Adam(model.parameters(), train.rate)
    for _ in range(train.epochs):
        for batch in rows[torch.randperm(len(rows))].split(train.batch):
            loss = (model.decoder(model.encode(batch)) - batch).square().sum(1).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                weight = model.decoder.weight
                weight.copy_(functional.normalize(weight, dim=0))

    @torch.no_grad()
    def encode(rows: Rows) -> Array:
        return model.encode(torch.from_numpy(rows[:])).numpy()

    return model.decoder.weight.detach().T.numpy(), encode


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
