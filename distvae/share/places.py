"""Places of pushed models: folders, URIs that pyarrow reaches, and the Hugging Face hub."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from distvae.files.output import check_writable_folder
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder
from distvae.files.untrusted import path_inside
from distvae.share.hub import HUB, Repository
from distvae.share.names import CARD, LISTED, SUMS


class Place(Protocol):
    """A place that holds one pushed model."""

    def read(self, name: str) -> bytes:
        """Return the content of a file."""

    def write(self, files: Mapping[str, bytes], force: bool) -> None:
        """Write the files of a model. Refuse a place that has one, unless `force` replaces it."""


def place_of(text: str) -> Place:
    """Return the place that a path or a URI names."""
    return Repository(text) if text.startswith(HUB) else ModelFolder(text)


class ModelFolder:
    """A folder of this machine or of a storage.

    The checksums are written first and deleted last. What was cut short is refused when it is
    loaded, and can be replaced.
    """

    def __init__(self, text: str) -> None:
        self.folder = Folder(text)

    def __str__(self) -> str:
        return str(self.folder)

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        folder, file = self._holder(name)
        with self._reached("a model that 'distvae push' wrote expected", name):
            if not self.folder.remote:
                path_inside(Path(self.folder.path), name)
            return folder.read(file)

    def write(self, files: Mapping[str, bytes], force: bool) -> None:
        """Write the files of a model. Refuse a folder with anything else in it."""
        if not self.folder.remote:
            check_writable_folder(Path(self.folder.address))
        with self._reached("a place that can be written expected"):
            if not self.folder.is_empty():
                self._clear(force)
            for name in sorted(files, key=lambda name: name != SUMS):
                folder, file = self._holder(name)
                folder.write(file, files[name])

    def _clear(self, force: bool) -> None:
        """Delete the files of the model that is there."""
        if not force:
            raise Refusal(f"{self}: exists; another place, or --force to replace a model, expected")
        if not self.folder.has(SUMS):
            raise Refusal(
                f"{self}: holds no model that 'distvae push' wrote; another place expected"
            )
        for name in (CARD, *sorted(LISTED), SUMS):
            folder, file = self._holder(name)
            folder.delete(file)

    def _holder(self, name: str) -> tuple[Folder, str]:
        """Return the folder that holds a file directly, and the name of the file in it."""
        below, _, file = name.rpartition("/")
        return (self.folder.subfolder(below) if below else self.folder), file

    @contextmanager
    def _reached(self, expected: str, name: str = "") -> Iterator[None]:
        """Turn an error of the storage into a `Refusal` that names the place."""
        try:
            yield
        except OSError as error:
            named = f"{self}/{name}" if name else str(self)
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise Refusal(f"{named}: no such file; {expected}") from error
            reason = cause(error.strerror or error)
            raise Refusal(f"{named}: {reason}; {expected}") from error
