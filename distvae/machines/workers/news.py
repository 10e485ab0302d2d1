"""News of a run folder: what workers have written since the driver looked last."""

from collections.abc import Iterator

from distvae.files.storage import Folder
from distvae.train.documents import Event
from distvae.train.epoch import Epoch
from distvae.train.events import EVENTS, describe_event, read_events, starts_of
from distvae.train.run import EPOCHS, read_epochs


class RunFolderNews:
    """The epochs and events in a run folder that were not reported.

    A file is read again only if its size has changed, and of epochs only the new lines are parsed:
    the driver looks several times a second, on a machine that trains.
    """

    def __init__(self, folder: Folder, epochs: int) -> None:
        self.folder, self.epochs = folder, epochs
        self.last_epoch = len(read_epochs(folder))
        self.events: list[Event] = []
        self.reported_events = 0
        self.sizes: dict[str, int] = {}

    def read(self) -> Iterator[Epoch | str]:
        """Yield what was written since the last call."""
        epochs_changed = self._has_changed(EPOCHS)
        if self._has_changed(EVENTS):
            self.events = read_events(self.folder)
        for event in self.events[self.reported_events :]:
            self.reported_events += 1
            starts = starts_of(self.events[: self.reported_events])
            yield describe_event(event, len(starts))
        if epochs_changed:
            yield from self._read_epochs()

    def _read_epochs(self) -> Iterator[Epoch]:
        """Yield the epochs that were not reported; each has a line, in their order."""
        for record in read_epochs(self.folder, self.last_epoch + 1):
            if record["epoch"] > self.last_epoch:
                self.last_epoch = int(record["epoch"])
                restarts = len(starts_of(self.events)) - 1
                details = {"workers": self.events[-1]["workers"], "restarts": restarts}
                yield Epoch.read(record | details, self.epochs)

    def _has_changed(self, name: str) -> bool:
        """Return whether the size of a file is another than at the last call."""
        former, self.sizes[name] = self.sizes.get(name, 0), self.folder.size(name)
        return self.sizes[name] != former
