"""The models as scikit-learn estimators."""

from distvae.files.program import is_installed, missing_package

if not is_installed("sklearn"):
    raise ImportError(missing_package("sklearn", "an estimator"))

from distvae.estimators.models import (
    SDMVAE,
    TVAE,
    VAE,
    VSC,
    BinarySparseCoding,
    GumbelVAE,
    SpikeSlab,
)
from distvae.estimators.speech import SpeechCoder

__all__ = [
    "SDMVAE",
    "TVAE",
    "VAE",
    "VSC",
    "BinarySparseCoding",
    "GumbelVAE",
    "SpeechCoder",
    "SpikeSlab",
]
