"""Methods for speech: what the same scores say of the identity and of linear codes, signed and
non-negative.
"""

import re

import numpy as np
import torch
from torch import Tensor

from distvae.config import DataConfig
from distvae.data import open_dataset
from distvae.data.dataset import Rows
from distvae.files.refusal import Refusal
from distvae.tasks.resynthesis import Coded, Coder

BLOCK = 8192
FRAMES = 32768
"""That are factorised."""
UPDATES = 200
"""Of the factors, and of the activations of frames to be coded."""


def baseline_coder(name: str, data: DataConfig) -> Coder:
    """What a method makes of power: `identity`, or so many components, fitted to the training
    frames.
    """
    if name == "identity":
        return lambda power, first: Coded(power, None)
    known = re.fullmatch(r"(pca|nmf)-([1-9]\d*)", name)
    if not known or int(known[2]) > data.dims:
        raise Refusal(
            f"{name}: no method for speech; identity, pca-1 to pca-{data.dims} or nmf-1 to"
            f" nmf-{data.dims} expected"
        )
    fitted = {"pca": pca, "nmf": nmf}[known[1]]
    return fitted(open_dataset(data, quiet=True).splits["train"], int(known[2]))


def pca(power: Rows, components: int) -> Coder:
    """The principal components of log power with the largest variance, as a coder."""
    mean, covariance = _moments(power)
    _, vectors = np.linalg.eigh(covariance)
    basis = torch.from_numpy(vectors[:, ::-1][:, :components].astype(np.float32))
    centre = torch.from_numpy(mean.astype(np.float32))

    def code(power: Tensor, first: int) -> Coded:
        scores = (power.log() - centre) @ basis
        return Coded((scores @ basis.T + centre).exp(), scores)

    return code


def nmf(power: Rows, components: int) -> Coder:
    """A non-negative factorisation of magnitudes by the least Kullback-Leibler divergence (Lee and
    Seung, 2001).

    The code is the activations. Fitted to at most FRAMES training frames, evenly spaced.
    """
    from sklearn.decomposition import NMF

    frames = np.sqrt(power[:: -(-len(power) // FRAMES)])
    model = NMF(
        components,
        init="nndsvda",
        solver="mu",
        beta_loss="kullback-leibler",
        tol=0,
        max_iter=UPDATES,
        random_state=0,
    ).fit(frames)

    def code(power: Tensor, first: int) -> Coded:
        activations = model.transform(power.sqrt().numpy())
        return Coded(
            torch.from_numpy((activations @ model.components_) ** 2), torch.from_numpy(activations)
        )

    return code


def _moments(power: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of log power, block by block in double precision."""
    total, product = np.zeros(power.shape[1]), np.zeros((power.shape[1], power.shape[1]))
    for start in range(0, len(power), BLOCK):
        block = np.log(power[start : start + BLOCK]).astype(np.float64)
        total, product = total + block.sum(0), product + block.T @ block
    mean = total / len(power)
    return mean, product / len(power) - np.outer(mean, mean)
