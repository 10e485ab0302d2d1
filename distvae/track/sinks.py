"""The sinks beside MLflow."""

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.track.file_sink import FileSink
from distvae.track.retries import Retries
from distvae.track.tensorboard import TensorBoard
from distvae.track.weights_and_biases import WeightsAndBiases

CLASSES: dict[str, type[FileSink]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
"""The sinks by name. Their packages are imported when something is written."""


class FileSinks:
    """The sinks of one run beside MLflow. What goes wrong in one is told once and stops nothing."""

    def __init__(self, names: Sequence[str], run: Path) -> None:
        self.run, self._open = run, dict[str, FileSink]()
        self._retries = {
            name: Retries(
                f"{run.name}: writing for {name} fails",
                "Training continues, and so does the record in MLflow.",
                f"{run.name}: {name} has everything now.",
            )
            for name in names
        }

    def send(self) -> None:
        """Let each sink write what it does not have yet."""
        for name, retries in self._retries.items():
            retries.attempt(partial(self._send_to, name))

    def close(self) -> None:
        """Close the files of all sinks."""
        for name, sink in self._open.items():
            self._retries[name].attempt(sink.close)
        self._open = {}

    def _send_to(self, name: str) -> None:
        if name not in self._open:
            self._open[name] = CLASSES[name](self.run)
        self._open[name].send()


def refuse_missing_packages(names: Sequence[str]) -> None:
    """Refuse a sink whose package is not installed."""
    for name in names:
        package = CLASSES[name].package
        if find_spec(package) is None:
            raise Refusal(
                f"train.sinks: '{name}' needs the package {package}, which is not installed;"
                f" pip install 'distvae[{name}]', or train.sinks without it, expected"
            )
