"""Compare a model with the truth: its posterior with the exact posterior, by enumeration, and its
density with the known density of data such as bars.
"""

import itertools
import math

import numpy as np
import torch

from distvae.config import Exact as ExactConfig
from distvae.data import open_dataset
from distvae.data.dataset import Array, Rows
from distvae.data.generated import BarsFamily, causes_of
from distvae.estep.truncated import Exact
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.truncated import Truncated
from distvae.models.tvae import TVAE
from distvae.numerics.metrics import declare
from distvae.numerics.noise import EVALUATION, Noise
from distvae.train.batches import BLOCK
from distvae.train.run import Run
from distvae.train.run_folder import best_epoch, read_config

MAX_BITS = 16
"""The most latents whose states fit in memory for a block of rows."""
STATED_ROWS = 64
"""Rows whose states are enumerated together."""
ENUMERABLE = 12
"""The largest number of causes whose combinations are enumerated."""
ALIKE = 0.3
"""The largest root mean square difference, over the pixels of a cause, for a recovered cause."""


@torch.inference_mode()
def compare_with_exact(run: Run, rows: int) -> dict[str, float]:
    """Compare the bound and the codes on the kept states with the bound and the codes on all
    states, for training rows.
    """
    model = run.model
    if not isinstance(model, TVAE):
        raise Refusal(
            f"{run.path}: a run of model.kind '{run.config.model.kind}'; one with binary latents"
            " expected"
        )
    if model.code_size > MAX_BITS:
        raise Refusal(
            f"{run.path}: {model.code_size} latents have too many states to enumerate;"
            f" at most {MAX_BITS} expected"
        )
    data = open_dataset(run.config.data, quiet=True).splits["train"][:rows]
    exact = Exact(ExactConfig(), model)
    bound = log_likelihood = code_difference = 0.0
    for start in range(0, len(data), STATED_ROWS):
        x = torch.tensor(data[start : start + STATED_ROWS])
        batch = Batch.of(x, torch.arange(start, start + len(x)))
        q, p, noise = run.estep(model, batch), exact(model, batch), Noise(0, EVALUATION, batch.row)
        assert isinstance(q, Truncated)
        bound += float(model.bound(batch, q, noise).sum()) / len(data)
        log_likelihood += float(model.bound(batch, p, noise).sum()) / len(data)
        code_difference = max(code_difference, float((q.code - p.code).abs().max()))
    return {
        "bound": bound,
        "log_likelihood": log_likelihood,
        "code_difference": code_difference,
        "gap": log_likelihood - bound,
        "rows": float(len(data)),
    }


declare("bound", "true_log_likelihood")
declare("quality", "reliability", "recovered")


def compare_with_truth(run: Run, rows: Rows) -> dict[str, float]:
    """Return the mean true log-likelihood, the gap between it and the model, and the share of
    recovered causes.

    Data whose distribution is unknown or cannot be enumerated has no scores of this kind.
    """
    data = causes_of(run.config.data)
    if data is None or not data.variance or data.probability >= 1:
        return {}
    causes = data.causes()
    if len(causes) > ENUMERABLE:
        return {}
    blocks = (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))
    truth = sum(float(log_likelihood(data, x).sum()) for x in blocks) / len(rows)
    scores = {"true_log_likelihood": truth}
    if run.config.data == read_config(run.path, run.info).data:
        reached = best_epoch(run.path, run.epochs())["val_bound"]
        scores["reliability"] = (reached - truth) / abs(truth)
    if isinstance(run.model, TVAE):
        scores["recovered"] = share_recovered(run.model, causes)
        if run.model.code_size <= MAX_BITS:
            scores |= compare_combinations(run.model, data)
    return scores


def log_likelihood(data: BarsFamily, x: Array) -> torch.Tensor:
    """Return (B,) log p(x) in nats under the true parameters, by enumeration."""
    causes, chance = data.causes().astype(np.float64), data.probability
    states = np.array(list(itertools.product((0, 1), repeat=len(causes))), dtype=np.float64)
    prior = states.sum(1) * math.log(chance) + (1 - states).sum(1) * math.log1p(-chance)
    means = data.visible(states.astype(np.float32)) @ causes
    distance = np.square(x).sum(1)[:, None] - 2 * x @ means.T + np.square(means).sum(1)
    density = -0.5 * (distance / data.variance + x.shape[1] * math.log(2 * math.pi * data.variance))
    return torch.from_numpy(prior + density).logsumexp(1)


@torch.no_grad()
def compare_combinations(model: TVAE, data: BarsFamily) -> dict[str, float]:
    """Compare log p of noiseless combinations of causes under the model and under the truth."""
    combinations = data.combinations()
    if combinations is None:
        return {}
    causes = data.causes()
    tested = (*combinations.impossible, *combinations.possible)
    x = np.stack([causes[list(active)].sum(0) for active in tested])
    batch = Batch.of(torch.from_numpy(x), torch.arange(len(x)))
    q = Exact(ExactConfig(), model)(model, batch)
    learnt = model.bound(batch, q, Noise(0, EVALUATION, batch.row)).double()
    truth = log_likelihood(data, x)
    impossible = len(combinations.impossible)
    difference = (learnt - truth)[impossible:].abs()
    return {
        "combinations_apart": float(difference.mean()),
        "never_together": float(learnt[:impossible].mean()),
        "true_never_together": float(truth[:impossible].mean()),
    }


@torch.no_grad()
def share_recovered(model: TVAE, causes: Array) -> float:
    """Return the share of causes that match the effect of a latent. Each cause needs its own
    latent.
    """
    pixels = float(causes[0].sum())
    alone = (
        model.decode(torch.eye(model.code_size)[:, None])[:, 0]
        - model.decode(torch.zeros(1, 1, model.code_size))[0]
    )
    distance = torch.cdist(torch.from_numpy(causes), alone) / pixels**0.5
    near, nearest = distance.min(1)
    return len(set(nearest[near < ALIKE].tolist())) / len(causes)
