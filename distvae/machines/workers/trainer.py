"""Ray Train's trainer, without helpers that nothing here needs. It imports Ray."""

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

from distvae.files.storage import Folder
from distvae.machines.workers.failures import StopsWithoutProgress
from distvae.machines.workers.no_more_machines import NoMoreMachines
from distvae.train.events import EVENTS

DATASETS = "DatasetsCallback"
"""The callback that starts an actor for datasets, in two to three seconds of processor time."""
CLEANER = "PlacementGroupCleanerCallback"
"""The callback that starts an actor to free resources if the trainer is killed, in as long."""


class LightTrainer(TorchTrainer):  # type: ignore[misc]
    """A trainer of workers that read no datasets of Ray, which stops without progress."""

    left_out: tuple[str, ...] = (DATASETS,)

    def _create_default_callbacks(self) -> list[object]:
        callbacks: list[object] = super()._create_default_callbacks()
        return [each for each in callbacks if type(each).__name__ not in self.left_out]

    def _initialize_and_run_controller(self, **parts: object) -> object:
        folder = Folder(self.train_loop_config["job"].place)
        parts["failure_policy"] = StopsWithoutProgress(
            self.run_config.failure_config, folder, EVENTS
        )
        return super()._initialize_and_run_controller(**parts)


class PrivateTrainer(LightTrainer):
    """Such a trainer under a Ray of its own, which ends with it and gets no more machines."""

    left_out = (DATASETS, CLEANER)

    def _initialize_and_run_controller(self, **parts: object) -> object:
        if isinstance(parts["scaling_policy"], FixedScalingPolicy):
            parts["scaling_policy"] = NoMoreMachines(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)
