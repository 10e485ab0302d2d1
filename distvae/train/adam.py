"""Torch's Adam along the gradients of all workers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from distvae.train.team import Team


class Adam:
    """Every parameter counts its own steps, so that one that learns late is not behind."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], team: Team, clip: float | None = None
    ) -> None:
        self.parameters, self.team, self.clip = list(parameters), team, clip
        self.rate: float | Tensor = 0.0
        """A number, or a scalar where the parameters are."""
        on_device = any(parameter.device.type != "cpu" for parameter in self.parameters)
        self.adam = torch.optim.Adam(self.parameters, fused=True, capturable=on_device)
        for parameter in self.parameters:  # so that there is always the same to keep
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            self.adam.state[parameter] = {"step": step, **moments}

    def forget(self) -> None:
        """Clear the gradients."""
        self.adam.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Move along the sum of all workers' gradients; that of a worker without rows is zero.

        Parameters that do not learn yet stand still.
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
        """Replace the parameters of all workers, and their moments, by their mean."""
        averaged = [*self.parameters, *self.state().values()]
        team.sum(averaged)
        for tensor in averaged:
            tensor /= team.size

    def state(self) -> dict[str, Tensor]:
        """Return the moments of all parameters, by the names that checkpoints give them."""
        found = {}
        for place, parameter in enumerate(self.parameters):
            for name, value in self.adam.state[parameter].items():
                found[f"optimizer.{place}.{name}"] = value
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the moments by these names; a parameter that has not learned has none."""
        for name, value in self.state().items():
            if name in tensors:
                value.copy_(tensors[name])
