"""Adam (Kingma and Ba, 2015), whose work the workers of one machine divide: each moves its part of the parameters."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from distvae.train.team import Team

FIRST, SECOND, FLOOR = 0.9, 0.999, 1e-8


class Adam:
    """Steps of torch's fused Adam; every parameter counts its own, so that one that learns late is not behind.

    Means and squares of gradients are kept whole, but only the worker's part of them is up to date until they are
    `gathered`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], team: Team) -> None:
        self.parameters, self.team = parameters, team
        self.rate = 0.0
        self.moments = [
            {"step": torch.zeros((), device=p.device), "exp_avg": zero, "exp_avg_sq": zero.clone()}
            for p in parameters
            for zero in [p.new_zeros(p.shape)]
        ]
        self.parts = [
            (self._part(p.detach()), self._part(own["exp_avg"]), self._part(own["exp_avg_sq"]), own["step"])
            for p, own in zip(parameters, self.moments, strict=True)
        ]

    def _part(self, tensor: Tensor) -> Tensor:
        """What this worker moves of it."""
        return tensor.view(-1)[self.team.part(tensor.numel())]

    def forget(self) -> None:
        """Gradients begin anew."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move along the sum of all workers' gradients; that of a worker without rows is zero.

        Parameters that do not learn yet stand still.
        """
        learning = [k for k, p in enumerate(self.parameters) if p.requires_grad]
        moving = [self.parameters[k] for k in learning]
        sums = self.team.scatter([torch.zeros_like(p) if p.grad is None else p.grad for p in moving])
        values, means, squares, steps = map(list, zip(*(self.parts[k] for k in learning), strict=True))
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            values,
            sums,
            means,
            squares,
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
        self.team.spread(moving)

    @torch.no_grad()
    def gathered(self) -> list[dict[str, Tensor]]:
        """The moments of each parameter, whole on every worker."""
        for name in ("exp_avg", "exp_avg_sq"):
            self.team.spread([own[name] for own in self.moments])
        return self.moments

    def restore(self, parameter: int, moments: Mapping[str, Tensor]) -> None:
        """Go on from these moments of a parameter; none are those of one that has not learnt."""
        for name, value in moments.items():
            self.moments[parameter][name].copy_(value)
