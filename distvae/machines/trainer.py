"""Ray Train's trainer, without the helpers that nothing here needs. It imports Ray."""

from ray.train.torch import TorchTrainer

ALWAYS = frozenset({"DatasetsCallback"})
"""What starts an actor for datasets of Ray, and there are none."""
ON_A_PRIVATE_RAY = ALWAYS | {"PlacementGroupCleanerCallback"}
"""What also frees the resources of a controller that was killed; a private Ray ends with it."""


class LightTrainer(TorchTrainer):  # type: ignore[misc]
    """A trainer that starts no process for helpers that are left out.

    Each takes two to three seconds of processor time to start.
    """

    left_out = ALWAYS

    def _create_default_callbacks(self) -> list[object]:
        callbacks: list[object] = super()._create_default_callbacks()
        return [each for each in callbacks if type(each).__name__ not in self.left_out]


class PrivateTrainer(LightTrainer):
    """The same for a Ray that ends with this program."""

    left_out = ON_A_PRIVATE_RAY
