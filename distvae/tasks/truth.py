"""Compare a model with the truth: its posterior with the exact posterior, by enumeration, its
density with the known density of data such as bars, and its dictionary and codes with known atoms
and coefficients.
"""

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

from distvae.config import Exact as ExactConfig
from distvae.data import open_dataset
from distvae.data.dataset import Array, Rows
from distvae.data.family import family_of
from distvae.data.generated import AtomsFamily, BarsFamily, causes_of
from distvae.estep.truncated import Exact
from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.spike_slab import SpikeSlab
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
TINY = 1e-12
"""The least norm by which vectors are divided."""
SAME = 0.9
"""The cosine above which two atoms count as the same."""
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
declare("quality", "reliability", "recovered", "cosine", "matched", "mcc")


def compare_with_truth(run: Run, rows: Rows) -> dict[str, float]:
    """Return the mean true log-likelihood, the gap between it and the model, and the share of
    recovered causes; or how well known atoms and their coefficients are recovered.

    Data whose distribution is unknown or cannot be enumerated has no scores of this kind.
    """
    family = family_of(run.config.data)
    if isinstance(family, AtomsFamily):
        return compare_run_with_atoms(run, family)
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


def compare_run_with_atoms(run: Run, data: AtomsFamily) -> dict[str, float]:
    """Return how well a run with a dictionary recovers known atoms and coefficients."""
    if not isinstance(run.model, SpikeSlab):
        return {}

    def encode(rows: Rows) -> Array:
        return run.in_blocks(rows, lambda block: run.posterior(block).code)

    return compare_with_atoms(run.model.dictionary.numpy(), encode, data)


def compare_with_atoms(
    atoms: Array, encode: Callable[[Rows], Array], data: AtomsFamily
) -> dict[str, float]:
    """Return the mean cosine of the true atoms with their learned atoms, the share of true atoms
    that are matched, and the mean correlations of codes in and out of distribution.
    """
    cosines = match_atoms(atoms, data.atoms())
    scores = {"cosine": float(cosines.mean()), "matched": float((cosines > SAME).mean())}
    rows, codes = data.open().splits, data.codes()
    for name, split in {"mcc": "val", "mcc_ood": "test"}.items():
        blocks = [slice(k, k + BLOCK) for k in range(0, len(rows[split]), BLOCK)]
        scores[name] = mean_correlation(
            (encode(rows[split][part]), codes[split].dense(part.start, part.stop))
            for part in blocks
        )
    return scores


def match_atoms(atoms: Array, truth: Array) -> Array:
    """Return the absolute cosine of each true atom with the learned atom that is matched to it.

    The matching is one to one and has the largest sum. An atom without a match has a cosine of 0.
    """
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    return _best_matches(np.abs(truth @ (atoms / np.maximum(norms, TINY)).T))


def mean_correlation(blocks: Iterable[tuple[Array, Array]]) -> float:
    """Return the mean absolute correlation of true coefficients with the values of the code that
    are matched to them. The matching is one to one and has the largest sum. Columns that are
    constant are left out.

    `blocks` are pairs of codes (N, H) and coefficients (N, n), mostly zeros.
    """
    refuse_missing("correlating codes", "scipy")
    from scipy.sparse import csr_array, vstack

    pairs = [(csr_array(code, dtype=float), csr_array(true, dtype=float)) for code, true in blocks]
    columns = [vstack(each, format="csc") for each in zip(*pairs, strict=True)]
    code, true = (each[:, (each.max(0) - each.min(0)).toarray().ravel() > 0] for each in columns)
    products = (true.T @ code).toarray() / code.shape[0] - np.outer(true.mean(0), code.mean(0))
    deviations = [np.sqrt(each.power(2).mean(0) - each.mean(0) ** 2) for each in (true, code)]
    return float(_best_matches(np.abs(products) / np.outer(*deviations)).mean())


def _best_matches(values: Array) -> Array:
    """Return the value of each line in the one-to-one matching of lines and columns with the
    largest sum; 0 for a line without a column.
    """
    refuse_missing("matching atoms", "scipy")
    from scipy.optimize import linear_sum_assignment

    line, column = linear_sum_assignment(values, maximize=True)
    found = np.zeros(len(values), values.dtype)
    found[line] = values[line, column]
    return found
