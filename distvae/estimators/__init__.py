"""The models as estimators of scikit-learn."""

from distvae.estimators.models import SDMVAE, TVAE, VAE, VSC, BinarySparseCoding, GumbelVAE

__all__ = ["SDMVAE", "TVAE", "VAE", "VSC", "BinarySparseCoding", "GumbelVAE"]
