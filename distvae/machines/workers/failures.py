"""When a training under Ray Train gives up because its workers are lost again and again.

The process of Ray Train's controller imports this module, and therefore not torch.
"""

import json

from ray.train import FailureConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2._internal.execution.failure_handling.default import DefaultFailurePolicy
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder

RESTARTS_WITHOUT_PROGRESS = 5
"""Restarts in a row from one position before a training gives up."""
SAME_ERRORS = 3
"""Times in a row that an accelerator fails with one error at one position before a training gives
up.
"""
NOT_BEGUN = (-1, -1)
"""The position of a training that has not begun."""


def lost_workers(error: Exception) -> bool:
    """Return whether an error is of workers that were lost, while they started or later.

    Too few machines and machines that are taken away are other errors.
    """
    if isinstance(error, ControllerError):
        return isinstance(error.controller_failure, WorkerGroupStartupFailedError)
    return isinstance(error, WorkerGroupError)


def accelerator_error(error: Exception) -> str:
    """Return the text of the accelerator's error that ended workers, or '' if none did."""
    for failure in getattr(error, "worker_failures", {}).values():
        own = getattr(failure, "_base_exc", failure)
        if type(own).__name__ == "AcceleratorError":
            return cause(own)
    return ""


class StopsWithoutProgress(DefaultFailurePolicy):  # type: ignore[misc]
    """Ray's policy, which also gives up when restarts bring no progress.

    Progress is told by the events of the run: each start records the epoch and the batch.
    """

    def __init__(self, failure_config: FailureConfig, folder: Folder, events: str) -> None:
        super().__init__(failure_config)
        self.folder, self.events = folder, events
        self.lost_at: tuple[int, int] | None = None
        self.without_progress = 0
        self.accelerator_error, self.same_errors = "", 0

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Return whether to restart the workers after an error."""
        decision: FailureDecision = super().make_decision(training_failed_error)
        if not lost_workers(training_failed_error):
            return decision
        try:
            position = self._position()
        except (OSError, Refusal):  # nobody knows whether there was progress
            return decision
        text, has_progress = accelerator_error(training_failed_error), position != self.lost_at
        is_same = text == self.accelerator_error and not has_progress
        self.same_errors = self.same_errors + 1 if is_same else 1
        self.without_progress = 0 if has_progress else self.without_progress + 1
        self.lost_at, self.accelerator_error = position, text
        gives_up = self.without_progress == RESTARTS_WITHOUT_PROGRESS
        if gives_up or (text and self.same_errors == SAME_ERRORS):
            return FailureDecision.RAISE
        return decision

    def _position(self) -> tuple[int, int]:
        """Return the epoch and the batch of the last event."""
        written = self.folder.read(self.events) if self.folder.has(self.events) else b""
        lines = written[: written.rfind(b"\n") + 1].splitlines()
        if not lines:
            return NOT_BEGUN
        last = json.loads(lines[-1])
        return last["epoch"], last["batch"]
