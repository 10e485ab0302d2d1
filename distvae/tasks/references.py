"""Honest references beside the models: what the same scores say of the identity and of a linear code."""

import re

import numpy as np
import torch
from torch import Tensor

from distvae.config import Config, SpeechData
from distvae.data import open_dataset
from distvae.data.dataset import Rows
from distvae.refusal import Refusal
from distvae.tasks.judge import judge_recordings
from distvae.tasks.judgement import Judgement
from distvae.tasks.metrics import POWER_FLOOR
from distvae.tasks.resynthesis import Coded, Coder

BLOCK = 8192


def judge_reference(name: str, config: Config, split: str = "test", progress: bool = True) -> Judgement:
    """The scores of `identity` (transform and back) or `pca-COUNT` (principal components of the training log power)."""
    if not isinstance(config.data, SpeechData):
        raise Refusal(f"{name}: a reference for speech; data.kind 'speech' expected")
    return judge_recordings(_reference(name, config), config, split, progress)


def _reference(name: str, config: Config) -> Coder:
    if name == "identity":
        return lambda power, first: Coded(power, None)
    known = re.fullmatch(r"pca-([1-9]\d*)", name)
    if not known or int(known[1]) > config.data.bins:
        raise Refusal(f"{name}: no such reference; identity, or pca-1 to pca-{config.data.bins} expected")
    return pca(open_dataset(config.data, quiet=True).splits["train"], int(known[1]))


def pca(power: Rows, components: int) -> Coder:
    """The principal components of log power with the largest variance, as a coder."""
    mean, covariance = _moments(power)
    _, vectors = np.linalg.eigh(covariance)
    basis = torch.from_numpy(vectors[:, ::-1][:, :components].astype(np.float32))
    centre = torch.from_numpy(mean.astype(np.float32))

    def code(power: Tensor, first: int) -> Coded:
        scores = (power.clamp_min(POWER_FLOOR).log() - centre) @ basis
        return Coded((scores @ basis.T + centre).exp(), scores)

    return code


def _moments(power: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of log power, block by block in double precision."""
    total, product = np.zeros(power.shape[1]), np.zeros((power.shape[1], power.shape[1]))
    for start in range(0, len(power), BLOCK):
        block = np.log(np.maximum(power[start : start + BLOCK], POWER_FLOOR)).astype(np.float64)
        total, product = total + block.sum(0), product + block.T @ block
    mean = total / len(power)
    return mean, product / len(power) - np.outer(mean, mean)
