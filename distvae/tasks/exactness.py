"""Compare a truncated posterior with the exact posterior, by enumeration of all states."""

import torch

from distvae.config import Exact as ExactConfig
from distvae.data import open_dataset
from distvae.estep.truncated import Exact
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.truncated import Truncated
from distvae.models.tvae import TVAE
from distvae.numerics.noise import EVALUATION, Noise
from distvae.train.run import Run

MAX_BITS = 16
"""The most latents whose states fit in memory for a block of rows."""
BLOCK = 64


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
    for start in range(0, len(data), BLOCK):
        x = torch.tensor(data[start : start + BLOCK])
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
