"""The tensors of a model and its E-step by name, as checkpoints keep them."""

from torch import Tensor

from distvae.interface import AnyEStep, AnyModel


def tensors_below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose name begins with a prefix, without it."""
    found = {}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            found[name.removeprefix(f"{prefix}.")] = value
    return found


def weights(model: AnyModel, estep: AnyEStep) -> dict[str, Tensor]:
    """Return the parameters and buffers of both, by name."""
    found = {}
    for part, module in (("model", model), ("estep", estep)):
        for name, value in module.state_dict().items():
            found[f"{part}.{name}"] = value
    return found


def load_weights(model: AnyModel, estep: AnyEStep, tensors: dict[str, Tensor]) -> None:
    """Set the parameters and buffers of both, by name."""
    model.load_state_dict(tensors_below("model", tensors))
    estep.load_state_dict(tensors_below("estep", tensors))
