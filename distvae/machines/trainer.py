"""Ray Train's trainer, without a helper that nothing here needs. It imports Ray."""

from ray.train.torch import TorchTrainer

LEFT_OUT = "DatasetsCallback"
"""What starts an actor for datasets of Ray, which takes two to three seconds of processor time."""


class LightTrainer(TorchTrainer):  # type: ignore[misc]
    """A trainer of workers that read no datasets of Ray."""

    def _create_default_callbacks(self) -> list[object]:
        callbacks: list[object] = super()._create_default_callbacks()
        return [each for each in callbacks if type(each).__name__ != LEFT_OUT]
