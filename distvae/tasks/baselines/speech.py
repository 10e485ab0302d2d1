"""Baselines for speech: the identity, and linear codes, signed (PCA) and non-negative (NMF)."""

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
"""The most training frames that are factorised."""
UPDATES = 200
"""Updates of the factors, and of the activations of frames to be coded."""


def baseline_coder(name: str, data: DataConfig) -> Coder:
    """Return the coder of a baseline, fitted to the training frames.

    It is `identity`, or `pca-N` or `nmf-N` with N components.
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
    """Return a coder by the principal components of log power with the largest variance."""
    mean, covariance = _moments(power)
    _, vectors = np.linalg.eigh(covariance)
    basis = torch.from_numpy(vectors[:, ::-1][:, :components].astype(np.float32))
    centre = torch.from_numpy(mean.astype(np.float32))

    def code(power: Tensor, first: int) -> Coded:
        scores = (power.log() - centre) @ basis
        return Coded((scores @ basis.T + centre).exp(), scores)

    return code


def nmf(power: Rows, components: int) -> Coder:
    """Return a coder by non-negative factorisation of magnitudes (Lee and Seung, 2001).

    It minimises the Kullback-Leibler divergence on at most FRAMES training frames, evenly spaced.
    The code is the activations.
    """
    from sklearn.decomposition import NMF

    frames = np.sqrt(power[:: -(-len(power) // FRAMES)])
    if components > len(frames):
        raise Refusal(
            f"nmf-{components}: more factors than the {len(frames)} training frames; no more"
            " expected"
        )
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
    """Return mean and covariance of log power, computed by blocks in double precision."""
    total, product = np.zeros(power.shape[1]), np.zeros((power.shape[1], power.shape[1]))
    for start in range(0, len(power), BLOCK):
        block = np.log(power[start : start + BLOCK]).astype(np.float64)
        total, product = total + block.sum(0), product + block.T @ block
    mean = total / len(power)
    return mean, product / len(power) - np.outer(mean, mean)
