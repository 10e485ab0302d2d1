"""Adam (Kingma and Ba, 2015) along the gradients of all workers: torch's fused step without what
surrounds it.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from distvae.train.team import Team

fused_adam: Callable[..., None] = torch._fused_adam_
"""Torch's step; the rate may be a number or a tensor."""

FIRST, SECOND, FLOOR = 0.9, 0.999, 1e-8
TINY = 1e-6  # as torch has it, so that a gradient of zero has a share
PIECES = 32
"""Pieces into which parameters are divided on a GPU, each for a multiprocessor. Torch gives 65 536
numbers to one otherwise. It launches 36 pieces together at most.
"""
SMALLEST = 1024
"""The fewest numbers of a piece, a multiple of what a thread reads at once."""

Pieces = list[tuple[Tensor, ...]]
"""Parameters, or pieces of them, with their gradients, both moments and counts of steps."""


class Adam:
    """Every parameter counts its own steps, so that one that learns late is not behind."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], team: Team, clip: float | None = None
    ) -> None:
        self.parameters, self.team, self.clip = parameters, team, clip
        self.rate: float | Tensor = 0.0
        """A number, or a scalar where the parameters are."""
        self.moments = [_none(parameter) for parameter in parameters]
        self.in_pieces = False
        """Whether a step is divided among the multiprocessors of a GPU, which costs the processor
        more operations.
        """

    def forget(self) -> None:
        """Clear the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move along the sum of all workers' gradients; that of a worker without rows is zero.

        Parameters that do not learn yet stand still.
        """
        learning = [
            (p, moments)
            for p, moments in zip(self.parameters, self.moments, strict=True)
            if p.requires_grad
        ]
        if not learning:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p, _ in learning]
        self.team.sum(gradients)
        if self.clip is not None:
            share = self.clip / (nn.utils.get_total_norm(gradients) + TINY)
            torch._foreach_mul_(gradients, share.clamp(max=1.0))
        torch._foreach_add_([moments["step"] for _, moments in learning], 1)
        steps: Pieces = [
            (p, gradient, moments["exp_avg"], moments["exp_avg_sq"], moments["step"])
            for (p, moments), gradient in zip(learning, gradients, strict=True)
        ]
        _move(_divide(steps) if self.in_pieces else steps, self.rate)

    @torch.no_grad()
    def average(self, team: Team) -> None:
        """Replace the parameters of all workers, and their moments, by their mean."""
        moments = [value for moments in self.moments for value in moments.values()]
        averaged = [*self.parameters, *moments]
        team.sum(averaged)
        for tensor in averaged:
            tensor /= team.size

    def state(self) -> dict[str, Tensor]:
        """Return the moments of all parameters, by the names that checkpoints give them."""
        found = {}
        for place, moments in enumerate(self.moments):
            for name, value in moments.items():
                found[f"optimizer.{place}.{name}"] = value
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the moments by these names; a parameter that has not learned has none."""
        for name, value in self.state().items():
            if name in tensors:
                value.copy_(tensors[name])


def _move(steps: Pieces, rate: float | Tensor) -> None:
    """Move parameters, or pieces of them, along their gradients."""
    parameters, gradients, first, second, counts = map(list, zip(*steps, strict=True))
    fused_adam(
        parameters,
        gradients,
        first,
        second,
        [],
        counts,
        lr=rate,
        beta1=FIRST,
        beta2=SECOND,
        weight_decay=0.0,
        eps=FLOOR,
        amsgrad=False,
        maximize=False,
    )


def _divide(steps: Pieces) -> Pieces:
    """Return views of the tensors in pieces of similar size. A piece has the count of its whole."""
    total = sum(parameter.numel() for parameter, *_ in steps)
    size = SMALLEST * math.ceil(total / (PIECES * SMALLEST))
    divided: Pieces = []
    for *tensors, count in steps:
        if all(tensor.is_contiguous() for tensor in tensors):
            pieces = zip(*(tensor.view(-1).split(size) for tensor in tensors), strict=True)
            divided += [(*piece, count) for piece in pieces]
        else:
            divided.append((*tensors, count))
    return divided


def _none(parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return the moments before the first step, by the names that torch gives them."""
    averages = {
        name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")
    }
    # Torch's step on a GPU takes no other precision, whatever that of the parameters.
    return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)} | averages
