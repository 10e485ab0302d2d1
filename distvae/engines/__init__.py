"""Hand-written gradients of the models: compiled loops on the CPU, fixed shapes on a GPU.

They equal the gradients of autograd up to rounding, which the tests check.
"""

from distvae.interface import AnyEStep, AnyModel, Engine, HasEngine
from distvae.models.truncated import KeepsStates
from distvae.models.tvae import TVAE
from distvae.models.vae import VAE


def choose_engine(gradients: str, model: AnyModel, estep: AnyEStep) -> Engine | None:
    """Return the engine for a model and an E-step, or None to use autograd."""
    if gradients == "autograd":
        return None
    if isinstance(model, HasEngine):
        return model.engine(estep)
    on_cpu = next(model.parameters()).device.type == "cpu"
    if isinstance(model, VAE) and not on_cpu:
        from distvae.engines.encoder import find_encoder_engine

        return find_encoder_engine(model, estep)
    if type(model) is not TVAE:  # a subclass may have another objective
        return None
    if not on_cpu:
        from distvae.engines.tvae_gpu import find_tvae_engine

        return find_tvae_engine(model, estep)
    if not isinstance(estep, KeepsStates):
        return None
    from distvae.engines.tvae_cpu import TVAEEngine

    return TVAEEngine(model, estep)
