"""Multilayer perceptrons, convolutional encoders and decoders, and decoders of binary states."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from distvae.config import Net, TVAEModel
from distvae.files.refusal import Refusal

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
}
STRIDE = 2


def trunk(widths: tuple[int, ...], activation: str) -> nn.Sequential:
    """Return linear layers between consecutive widths, each followed by the activation."""
    layers = [(nn.Linear(a, b), ACTIVATIONS[activation]()) for a, b in pairwise(widths)]
    return nn.Sequential(*(module for layer in layers for module in layer))


def mlp(width: int, hidden: tuple[int, ...], out: int, activation: str) -> nn.Sequential:
    """Return a trunk with a linear layer on top."""
    widths = (width, *hidden)
    return nn.Sequential(*trunk(widths, activation), nn.Linear(widths[-1], out))


def encoder(config: Net, dims: int, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """Return the network from observations to features, and the number of features."""
    if config.net == "flat":
        widths = (dims, *config.hidden)
        return trunk(widths, config.activation), widths[-1]
    pyramid = Pyramid(config, shape, "estep")
    widths = (pyramid.dims, *config.hidden)
    layers = [nn.Unflatten(1, shape), *pyramid.inwards(), nn.Flatten()]
    return OnRows(nn.Sequential(*layers, *trunk(widths, config.activation))), widths[-1]


def decoder(config: Net, latent: int, dims: int, shape: tuple[int, ...]) -> nn.Module:
    """Return the network from latents to the parameters of observations."""
    if config.net == "flat":
        return mlp(latent, config.hidden, dims, config.activation)
    pyramid = Pyramid(config, shape, "model")
    linear = trunk((latent, *config.hidden, pyramid.dims), config.activation)
    return OnRows(
        nn.Sequential(*linear, nn.Unflatten(1, pyramid.top), *pyramid.outwards(), nn.Flatten())
    )


class OnRows(nn.Module):
    """Layers that expect one batch dimension, applied to any number of leading dimensions."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, rows: Tensor) -> Tensor:
        """(..., D) -> (..., E)."""
        out: Tensor = self.layers(rows.reshape(-1, rows.shape[-1]))
        return out.reshape(*rows.shape[:-1], out.shape[-1])


class Pyramid:
    """The image sizes after each convolution; each convolution about halves the size."""

    def __init__(self, config: Net, shape: tuple[int, ...], section: str) -> None:
        if len(shape) != 3:
            raise Refusal(
                f"{section}.net: 'conv', and a data point is no image; images or net: flat expected"
            )
        if not config.channels:
            raise Refusal(f"{section}.channels: [] with net 'conv'; one or more, or flat, expected")
        self.kernel, self.padding = config.kernel, (config.kernel - 1) // 2
        self.activation: Callable[[], nn.Module] = ACTIVATIONS[config.activation]
        self.channels = (shape[0], *config.channels)
        self.sizes: list[tuple[int, ...]] = [shape[1:]]
        for layer, _ in enumerate(config.channels):
            self.sizes.append(
                tuple(
                    (side + 2 * self.padding - self.kernel) // STRIDE + 1 for side in self.sizes[-1]
                )
            )
            if min(self.sizes[-1]) < 1:
                size = " x ".join(map(str, shape[1:]))
                raise Refusal(
                    f"{section}.channels: {len(config.channels)} layers on {size}; at most {layer}"
                    " expected"
                )
        self.top = (self.channels[-1], *self.sizes[-1])
        self.dims = self.top[0] * self.top[1] * self.top[2]

    def inwards(self) -> list[nn.Module]:
        """Return convolutions, each followed by the activation."""
        layers = [
            (nn.Conv2d(a, b, self.kernel, STRIDE, self.padding), self.activation())
            for a, b in pairwise(self.channels)
        ]
        return [module for layer in layers for module in layer]

    def outwards(self) -> list[nn.Module]:
        """Return transposed convolutions that reverse the sizes, with activations in between."""
        layers: list[nn.Module] = []
        for (low, high), (small, large) in zip(
            pairwise(self.channels[::-1]), pairwise(self.sizes[::-1]), strict=True
        ):
            least = [(side - 1) * STRIDE - 2 * self.padding + self.kernel for side in small]
            lacking = (large[0] - least[0], large[1] - least[1])
            layers += [
                nn.ConvTranspose2d(low, high, self.kernel, STRIDE, self.padding, lacking),
                self.activation(),
            ]
        return layers[:-1]


class FromBits(nn.Module):
    """A linear layer on states, with a row of weights (H, K) for each bit."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(latent, width)))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, z: Tensor) -> Tensor:
        """(..., H) -> (..., K)."""
        return z @ self.weight + self.bias


class StateDecoder(nn.Sequential):
    """A multilayer perceptron on binary states."""

    def __init__(self, config: TVAEModel, dims: int) -> None:
        layers = mlp(config.latent, config.hidden, dims, config.activation)
        layers[0] = FromBits(config.latent, (*config.hidden, dims)[0])
        if config.output == "sigmoid":
            layers.append(nn.Sigmoid())
        super().__init__(*layers)
        self.begins_linear = bool(config.linear and config.hidden)
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        if self.begins_linear:
            for hidden in self.linear[:-1]:
                # Unlike eye, this is cheap on torch's meta device, which counts parameters.
                nn.init.zeros_(hidden.weight).detach().fill_diagonal_(1.0)

    @property
    def linear(self) -> list[nn.Linear | FromBits]:
        """The linear layers."""
        return [layer for layer in self if isinstance(layer, nn.Linear | FromBits)]

    @property
    def passes_bits(self) -> bool:
        """True while all hidden layers are the identity, so that the last layer decodes bits."""
        return self.begins_linear and all(_is_identity(layer) for layer in self.linear[:-1])


def _is_identity(layer: nn.Linear | FromBits) -> bool:
    identity = nn.init.eye_(torch.empty_like(layer.weight))
    return torch.equal(layer.weight, identity) and not layer.bias.any()
