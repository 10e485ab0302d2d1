"""The figures of a search over states, and the error when it diverges."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.models.population import pack
from distvae.train.loop import Diverged, Epoch
from distvae.train.session import build_trainer
from tests import dense, tiny


def epochs(**train: Any) -> list[Epoch]:
    model, estep = (
        {"kind": "tvae", "latent": 6},
        {"kind": "evolution", "states": 8, "parents": 3, "block": 16},
    )
    config = tiny.config(
        model=model, estep=estep, train={"epochs": 3, "warmup": 0, "device": "cpu"} | train
    )
    return list(build_trainer(config, tiny.dataset()).run())


@given(st.integers(0, 2**31))
def test_active_latents_are_counted_as_numpy_counts_them(seed: int) -> None:
    model = dense.model(seed)
    batch, z = dense.rows(40, model, seed=seed), dense.some_states(40, 9, model.code_size)
    q = model.posterior(batch, pack(z))
    total = {
        name: value.double()
        for name, value in model.statistics(batch, q, dense.noise(batch)).items()
    }
    active = q.code.sum(1).round().detach().numpy()
    np.testing.assert_array_equal(
        total["counts"], np.bincount(active.astype(int), minlength=model.code_size + 1)
    )
    shares = model.telemetry(total, 40)
    for share in (10, 50, 90):
        assert shares[f"active_p{share}"] == np.percentile(active, share, method="inverted_cdf")


def test_a_search_that_diverges_says_so() -> None:
    with pytest.raises(Diverged, match="in epoch 1"):
        epochs(rate=1e30)
