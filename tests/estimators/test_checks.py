"""scikit-learn's own checks of estimators."""

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from distvae.estimators import (
    SDMVAE,
    TVAE,
    VAE,
    VSC,
    BinarySparseCoding,
    GumbelVAE,
    SpikeSlab,
)

SMALL: dict[str, Any] = {"epochs": 2, "batch": 16, "device": "cpu"}
ENCODED: dict[str, Any] = SMALL | {"latent": 3, "hidden": (4,)}
SEARCHED: dict[str, Any] = SMALL | {"latent": 6, "states": 8, "sweeps": 2}


def may_fail(estimator: object) -> dict[str, str]:
    """The check that codes through an exponential may fail: it allows no difference in the last
    digit, and torch computes the last few of many exponentials in another way.
    """
    if not isinstance(estimator, VSC | GumbelVAE):
        return {}
    return {"check_methods_sample_order_invariance": "the last digit of exponentials"}


@pytest.mark.slow
@parametrize_with_checks([VAE(**ENCODED)])
def test_scikit_learn_checks_pass(estimator: object, check: Callable[[object], None]) -> None:
    check(estimator)


@pytest.mark.long
@parametrize_with_checks(
    [
        *(model(**ENCODED) for model in (SDMVAE, VSC, GumbelVAE)),
        TVAE(**SEARCHED, hidden=(4,)),
        BinarySparseCoding(**SEARCHED),
        SpikeSlab(**SMALL, latent=6),
    ],
    expected_failed_checks=may_fail,
)
def test_scikit_learn_checks_of_other_models_pass(
    estimator: object, check: Callable[[object], None]
) -> None:
    check(estimator)
