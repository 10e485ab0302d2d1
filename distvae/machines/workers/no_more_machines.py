"""A fixed number of workers of Ray Train, under a Ray that gets no more machines.

The process of Ray Train's controller imports this module, and therefore not torch.
"""

from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy


class NoMoreMachines(FixedScalingPolicy):  # type: ignore[misc]
    """Ray's policy without its actor that asks for machines, which takes two seconds to start."""

    def after_controller_start(self, train_run_context: object) -> None:
        """Start no actor."""

    def _maybe_send_resource_request(self) -> None:
        """Ask for nothing."""
