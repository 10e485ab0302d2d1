"""The models as estimators of scikit-learn."""

from distvae.estimators.models import SDMVAE, TVAE, VAE, VSC, BinarySparseCoding, GumbelVAE
from distvae.estimators.speech import SpeechCoder

__all__ = ["SDMVAE", "TVAE", "VAE", "VSC", "BinarySparseCoding", "GumbelVAE", "SpeechCoder"]
