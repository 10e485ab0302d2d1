"""Multilayer perceptrons."""

from itertools import pairwise

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


def trunk(widths: tuple[int, ...], activation: str) -> nn.Sequential:
    """Linear layers between consecutive widths, each followed by the activation."""
    layers = [(nn.Linear(a, b), ACTIVATIONS[activation]()) for a, b in pairwise(widths)]
    return nn.Sequential(*(module for layer in layers for module in layer))


def mlp(width: int, hidden: tuple[int, ...], out: int, activation: str) -> nn.Sequential:
    """A trunk with a linear layer on top."""
    widths = (width, *hidden)
    return nn.Sequential(*trunk(widths, activation), nn.Linear(widths[-1], out))
