"""The tensors of a model and its E-step, by their names in checkpoints."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from distvae.config import Config
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import error_text
from distvae.interface import AnyEStep, AnyModel
from distvae.train.cost import DataSize, count_parameters


def tensors_below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix.`, with this prefix removed."""
    found = {}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            found[name.removeprefix(f"{prefix}.")] = value
    return found


def weights(model: AnyModel, estep: AnyEStep) -> dict[str, Tensor]:
    """Return the parameters and buffers of the model and the E-step, by name."""
    found = {}
    for part, module in (("model", model), ("estep", estep)):
        for name, value in module.state_dict().items():
            found[f"{part}.{name}"] = value
    return found


def load_weights(model: AnyModel, estep: AnyEStep, tensors: dict[str, Tensor]) -> None:
    """Set the parameters and buffers of the model and the E-step, by name."""
    model.load_state_dict(tensors_below("model", tensors))
    estep.load_state_dict(tensors_below("estep", tensors))


def refuse_too_few(
    place: Path, config: Config, data: DataSize, tensors: Mapping[str, Tensor]
) -> None:
    """Refuse weights with fewer values than the configured model has, before it is allocated.

    A damaged folder therefore cannot make this process allocate a huge model.
    """
    needed, found = count_parameters(config, data), sum(map(Tensor.numel, tensors.values()))
    if found < needed:
        raise Refusal(
            f"{place}: weights of {found:,} values; {shown(needed)} expected by its config.yaml and"
            " run.json"
        )


def load_stored_weights(
    place: Path, model: AnyModel, estep: AnyEStep, tensors: dict[str, Tensor]
) -> None:
    """Set the parameters and buffers of both parts. Refuse weights of another model."""
    try:
        load_weights(model, estep, tensors)
    except RuntimeError as error:  # torch raises it for other names and sizes
        raise Refusal(
            f"{place}: weights of another model ({error_text(error)}); those of its config.yaml"
            " and run.json expected"
        ) from error
