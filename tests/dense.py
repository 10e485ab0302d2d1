"""The TVAE written out densely in double precision, with neither words nor tables: what the package
is held to.
"""

from typing import Any

import torch
from torch import Tensor, distributions
from torch.nn import functional

from distvae.config import TVAEModel
from distvae.interface import Batch
from distvae.models.tvae import TVAE
from distvae.numerics.noise import Noise

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "leaky_relu": functional.leaky_relu}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"hidden": ()},
    {"hidden": (8, 4), "activation": "leaky_relu"},
    {"activation": "tanh", "output": "sigmoid"},
    {"likelihood": "bernoulli"},
    {"latent": 10, "hidden": (300,), "activation": "tanh"},
]
"""Fields of models that differ in every kind of layer and of likelihood."""


def model(seed: int = 0, dims: int = 7, **fields: Any) -> TVAE:
    """A TVAE whose parameters are all random, pi and sigma^2 too."""
    wanted: dict[str, Any] = {"latent": 6, "hidden": (5,)} | fields
    made = TVAE(TVAEModel(**wanted), dims)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        made.pi.copy_(0.02 + 0.5 * torch.rand(made.pi.shape, generator=generator))
        if made.config.likelihood == "gaussian":
            variance(made).fill_(0.5)
    return made


def variance(model: TVAE) -> Tensor:
    """sigma^2."""
    return model.likelihood.get_buffer("variance")


def layers(model: TVAE) -> list[tuple[Tensor, Tensor]]:
    """Weights (in, out) and biases of the decoder's layers."""
    (weight, bias), *rest = (
        tuple(layer.parameters()) for layer in model.decoder if list(layer.parameters())
    )
    return [(weight, bias), *((weight.T, bias) for weight, bias in rest)]


def rows(count: int, model: TVAE, seed: int = 0, missing: float = 0.0) -> Batch:
    """Random observations, some of them missing; zeros and ones, so that they suit every
    likelihood.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    x, chance = torch.rand(2, count, len(layers(model)[-1][1]), generator=generator)
    seen = chance >= missing
    return Batch(x.round().where(seen, 0.0), torch.arange(count), seen if missing else None)


def noise(batch: Batch, seed: int = 0) -> Noise:
    """The draws of a batch."""
    return Noise(seed, 0, batch.row)


def all_states(latent: int) -> Tensor:
    """(2^H, H)."""
    return ((torch.arange(2**latent)[:, None] >> torch.arange(latent)) & 1).double()


def some_states(rows: int, count: int, latent: int, seed: int = 0) -> Tensor:
    """(B, S, H) distinct in each row."""
    generator = torch.Generator().manual_seed(2000 + seed)
    each = [torch.randperm(2**latent, generator=generator)[:count] for _ in range(rows)]
    return all_states(latent)[torch.stack(each)]


def decode(model: TVAE, z: Tensor) -> Tensor:
    """The decoder's output, layer by layer."""
    *inner, last = layers(model)
    for weight, bias in inner:
        z = ACTIVATIONS[model.config.activation](z @ weight.double() + bias.double())
    z = z @ last[0].double() + last[1].double()
    return z.sigmoid() if model.config.output == "sigmoid" else z


def likelihood(model: TVAE, z: Tensor, sigma2: Tensor | None = None) -> Any:
    """p(x | z), by torch."""
    output = decode(model, z)
    if model.config.likelihood == "gaussian":
        sigma2 = variance(model).double() if sigma2 is None else sigma2
        return distributions.Normal(output, sigma2.sqrt())
    return distributions.Bernoulli(logits=output, validate_args=False)


def log_densities(model: TVAE, x: Tensor, z: Tensor, sigma2: Tensor | None = None) -> Tensor:
    """(B, S, D) log p(x_d | z)."""
    densities: Tensor = likelihood(model, z, sigma2).log_prob(x.double()[:, None])
    return densities


def log_joint(
    model: TVAE, batch: Batch, z: Tensor, pi: Tensor | None = None, sigma2: Tensor | None = None
) -> Tensor:
    """(B, S) log p(x, z) of states (B, S, H), by the densities of torch."""
    density = log_densities(model, batch.x, z, sigma2)
    if batch.mask is not None:
        density = density * batch.mask[:, None]
    prior: Tensor = (
        distributions.Bernoulli(model.pi.double() if pi is None else pi).log_prob(z).sum(-1)
    )
    return density.sum(-1) + prior


def evidence(model: TVAE, batch: Batch) -> Tensor:
    """(B,) log p(x), by summing over all states."""
    z = all_states(model.code_size)
    return log_joint(model, batch, z.expand(len(batch.x), -1, -1)).logsumexp(1)
