"""scikit-learn's own checks of estimators."""

from collections.abc import Callable

from sklearn.utils.estimator_checks import parametrize_with_checks

from distvae.estimators import SDMVAE, TVAE, VAE, VSC, BinarySparseCoding, GumbelVAE
from distvae.estimators.base import Estimator

ENCODED: list[Estimator] = [
    model(latent=3, hidden=(4,), epochs=2, batch=16, device="cpu")
    for model in (VAE, SDMVAE, VSC, GumbelVAE)
]
SEARCHED: list[Estimator] = [
    TVAE(latent=6, hidden=(4,), states=8, sweeps=2, epochs=2, batch=16, device="cpu"),
    BinarySparseCoding(latent=6, states=8, sweeps=2, epochs=2, batch=16, device="cpu"),
]


@parametrize_with_checks(ENCODED + SEARCHED)
def test_scikit_learn_checks_pass(estimator: object, check: Callable[[object], None]) -> None:
    check(estimator)
