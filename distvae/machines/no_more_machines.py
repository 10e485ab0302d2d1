"""Ray Train's fixed number of workers under a Ray that gets no more machines.

The trainer's process imports this, and Ray with it, but not torch.
"""

from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy


class NoMoreMachines(FixedScalingPolicy):  # type: ignore[misc]
    """Ray's policy, without the actor that asks for machines, which takes two seconds to start."""

    def after_controller_start(self, train_run_context: object) -> None:
        """Start no actor."""

    def _maybe_send_resource_request(self) -> None:
        """Ask for nothing."""
