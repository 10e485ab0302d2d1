"""The decoder of a binary model, which decodes each distinct state once."""

import torch
from torch import Tensor, nn

from distvae.config import TVAEModel
from distvae.models.gradients import known_linear
from distvae.models.nets import mlp
from distvae.models.population import States

CACHED = 2**18  # numbers of a layer's activations on the CPU that stay in its cache


class FromBits(nn.Module):
    """A linear layer on states, which adds up the rows of its weights (H, K) at active bits."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(latent, width)))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, z: Tensor | States) -> Tensor:
        """(..., H) -> (..., K)."""
        if isinstance(z, Tensor):
            return z @ self.weight + self.bias
        return z.linear(self.weight, self.bias)


class StateDecoder(nn.Sequential):
    """A multilayer perceptron on binary states."""

    def __init__(self, config: TVAEModel, dims: int) -> None:
        layers = mlp(config.latent, config.hidden, dims, config.activation)
        layers[0] = FromBits(config.latent, (*config.hidden, dims)[0])
        if config.output == "sigmoid":
            layers.append(nn.Sigmoid())
        super().__init__(*layers)
        self.widest = max((*config.hidden, dims))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        if config.linear:
            for layer in self.hidden:
                nn.init.eye_(layer.weight)

    @property
    def hidden(self) -> list[nn.Linear | FromBits]:
        """The linear layers before the last."""
        return [layer for layer in self if isinstance(layer, nn.Linear | FromBits)][:-1]

    def decode_table(self, table: States) -> Tensor:
        """Return the output (U, D) for the states of a table, in parts that stay in the cache."""
        on_cpu = table.words.device.type == "cpu"
        count = max(1, CACHED // self.widest) if on_cpu else len(table)
        return torch.cat([self(part) for part in table.split(count)])

    def with_gradient(self, states: States, output: Tensor) -> Tensor:
        """Return the output for states, of which the value is known, with its gradient."""
        *inner, last = self
        if not isinstance(last, nn.Linear):
            again: Tensor = self(states)
            return again
        hidden: Tensor = nn.Sequential(*inner)(states)
        return known_linear(hidden, last.weight, last.bias, output)
