"""Torch's Adam on the summed gradients of all workers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from distvae.train.team import Team


class Adam:
    """Adam with a step counter per parameter, so that parameters may start to learn later."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], team: Team, clip: float | None = None
    ) -> None:
        self.parameters, self.team, self.clip = list(parameters), team, clip
        self.rate: float | Tensor = 0.0
        """The learning rate: a number, or a scalar tensor on the device of the parameters."""
        on_device = any(parameter.device.type != "cpu" for parameter in self.parameters)
        self.adam = torch.optim.Adam(self.parameters, fused=True, capturable=on_device)
        for parameter in self.parameters:  # so that checkpoints always have the same tensors
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            self.adam.state[parameter] = {"step": step, **moments}

    def forget(self) -> None:
        """Clear the gradients."""
        self.adam.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Take a step with the summed gradients of all workers. A worker without rows adds zero.

        Parameters that do not learn yet stay unchanged.
        """
        learning = [parameter for parameter in self.parameters if parameter.requires_grad]
        if not learning:
            return
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.team.sum([parameter.grad for parameter in learning if parameter.grad is not None])
        if self.clip is not None:
            nn.utils.clip_grad_norm_(learning, self.clip)
        self.adam.param_groups[0]["lr"] = self.rate
        self.adam.step()

    @torch.no_grad()
    def average(self, team: Team) -> None:
        """Replace parameters and moments by their means over all workers."""
        averaged = [*self.parameters, *self.state().values()]
        team.sum(averaged)
        for tensor in averaged:
            tensor /= team.size

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser state of all parameters, by the names in checkpoints."""
        found = {}
        for place, parameter in enumerate(self.parameters):
            for name, value in self.adam.state[parameter].items():
                found[f"optimizer.{place}.{name}"] = value
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the optimiser state. Parameters that are missing in `tensors` keep their state."""
        for name, value in self.state().items():
            if name in tensors:
                value.copy_(tensors[name])
