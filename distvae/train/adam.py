"""Adam (Kingma and Ba, 2015) along the gradients of all workers: torch's fused step without what
surrounds it.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from distvae.train.team import Team

fused_adam: Callable[..., None] = torch._fused_adam_
"""Torch's step; the rate may be a number or a tensor."""

FIRST, SECOND, FLOOR = 0.9, 0.999, 1e-8
TINY = 1e-6  # as torch has it, so that a gradient of zero has a share


class Adam:
    """Every parameter counts its own steps, so that one that learns late is not behind."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], team: Team, clip: float | None = None
    ) -> None:
        self.parameters, self.team, self.clip = parameters, team, clip
        self.rate: float | Tensor = 0.0
        """A number, or a scalar where the parameters are."""
        self.moments = [_none(parameter) for parameter in parameters]

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
        steps = [moments["step"] for _, moments in learning]
        torch._foreach_add_(steps, 1)
        fused_adam(
            [p for p, _ in learning],
            gradients,
            [moments["exp_avg"] for _, moments in learning],
            [moments["exp_avg_sq"] for _, moments in learning],
            [],
            steps,
            lr=self.rate,
            beta1=FIRST,
            beta2=SECOND,
            weight_decay=0.0,
            eps=FLOOR,
            amsgrad=False,
            maximize=False,
        )

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


def _none(parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return the moments before the first step, by the names that torch gives them."""
    averages = {
        name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")
    }
    return {"step": torch.zeros((), device=parameter.device)} | averages
