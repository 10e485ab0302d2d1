"""Choose how gradients are computed: by an engine if the model has an engine, else by autograd."""

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
    if isinstance(model, VAE):
        return _for_encoder(model, estep)
    if type(model) is TVAE:  # a subclass may have another objective
        return _for_states(model, estep)
    return None


def _for_encoder(model: VAE, estep: AnyEStep) -> Engine | None:
    if model.config.draws > 1:
        return None  # engines take one draw per data point
    if next(model.parameters()).device.type == "cpu":
        return None
    from distvae.engines.device_encoder import find_device_encoder_engine

    return find_device_encoder_engine(model, estep)


def _for_states(model: TVAE, estep: AnyEStep) -> Engine | None:
    if model.pi.device.type != "cpu":
        from distvae.engines.device_tvae import find_device_tvae_engine

        return find_device_tvae_engine(model, estep)
    decoder = model.table_decoder()
    if decoder is None or not isinstance(estep, KeepsStates):
        return None
    from distvae.engines.tvae_engine import TVAEEngine

    return TVAEEngine(model, decoder, estep)
