"""Folders wherever they are: a path of this machine, or a URI that pyarrow reaches (file://, s3://,
gs://, hdfs://).
"""

import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distvae.files.refusal import Refusal, refusing_full_disk

OBJECT_STORES = {"s3", "gcs", "abfs"}
"""Where a file appears when it is closed, whole, and to move one is to copy it."""


GOOGLE = ("gs://", "gcs://")
LIMIT, SECONDS = "retry_limit_seconds", 3
"""For how long a storage of Google's is asked again that does not answer."""
AZURE = {"abfs", "abfss"}
"""Whose URIs name a container, or an account, before the `@`."""


def without_password(uri: str) -> str:
    """A URI without user and password; what it needs to find the place is kept."""
    scheme, separator, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    named = user.partition(":")[0] + at if scheme in AZURE else ""
    return f"{scheme}{separator}{named}{host}{slash}{path}"


class Sink(io.RawIOBase):
    """Passes bytes on to a file, and knows how many they were and their checksum."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream, self.count, self.digest = stream, 0, hashlib.sha256()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Bytes, or a buffer of them."""
        self.stream.write(data)
        self.digest.update(data)
        self.count += len(data)
        return len(data)

    def tell(self) -> int:
        """Where the next byte goes."""
        return self.count


def _refuse_unreadable(place: str) -> None:
    """Refuse a path that pyarrow cannot pass on."""
    try:
        refused = "\0" in place or not place.encode()
    except UnicodeEncodeError:
        refused = True
    if refused:
        raise Refusal(f"{place!r}: a name that is not in UTF-8; another place expected")


class Folder:
    """A folder in which files are written whole or not at all."""

    def __init__(self, place: str | Path) -> None:
        from pyarrow.fs import FileSystem, LocalFileSystem

        self.address = str(place)
        self.remote = "://" in self.address
        self.place = self.address if self.remote else str(Path(place).absolute())
        """How any process finds it, whatever its current folder."""
        if not self.remote:
            _refuse_unreadable(self.place)
            self.system, self.path = LocalFileSystem(), self.place
            return
        if not self.address.partition("://")[2].partition("?")[0].strip("/"):
            raise Refusal(
                f"storage: {self.address}: names no place; such as s3://bucket/runs expected"
            )
        try:
            self.system, self.path = FileSystem.from_uri(self.address)
        except (
            ValueError,
            OSError,
        ) as error:  # the latter where a library is missing, or nothing answers
            shown = re.sub(
                "(?<=://).*@", "", self.address.partition("?")[0]
            )  # whatever it is, it may be a password
            why = " ".join(str(error).replace(self.address, shown).split())
            raise Refusal(
                f"storage: {shown}: {why}; a path or a URI that pyarrow reads expected"
            ) from None

    def with_short_timeout(self) -> "Folder":
        """Return the same folder, to answer within seconds or not at all: Google's tries for a
        quarter of an hour.
        """
        if not self.address.startswith(GOOGLE) or LIMIT in self.address:
            return self
        return Folder(f"{self.address}{'&' if '?' in self.address else '?'}{LIMIT}={SECONDS}")

    @classmethod
    def of(cls, place: "str | Path | Folder") -> "Folder":
        """The folder itself, or the one at a place."""
        return place if isinstance(place, Folder) else cls(place)

    def __str__(self) -> str:
        """Where it is, without a password and without options."""
        return without_password(self.address).partition("?")[0] if self.remote else self.address

    def subfolder(self, name: str) -> "Folder":
        """A folder in this one."""
        place, separator, options = (
            self.address.partition("?") if self.remote else (self.address, "", "")
        )
        return Folder(f"{place.rstrip('/')}/{name}{separator}{options}")

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with self.system.open_input_stream(self.path_of(name)) as stream:
            return bytes(stream.readall())

    def write(self, name: str, content: bytes) -> None:
        """Replace a file by new content, or leave it as it is."""
        with self.create(name) as sink:
            sink.write(content)

    def append(self, name: str, content: bytes) -> None:
        """Add to a file what is to outlast a power cut; where files are whole or not there, it is
        written again.
        """
        if self.system.type_name in OBJECT_STORES:
            self.write(name, (self.read(name) if self.has(name) else b"") + content)
        elif self.system.type_name == "local":
            with refusing_full_disk(f"{self}/{name}"), Path(self.path_of(name)).open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        else:
            with (
                refusing_full_disk(f"{self}/{name}"),
                self.system.open_append_stream(self.path_of(name)) as stream,
            ):
                stream.write(content)

    @contextmanager
    def create(self, name: str) -> Iterator[Sink]:
        """A file to be written; it has its name once it is whole, and after an error what had it
        before.
        """
        whole = self.system.type_name in OBJECT_STORES
        partial = name if whole else f".{name}.{secrets.token_hex(4)}.partial"
        if not whole:
            self.system.create_dir(self.path)
            self.has(name)  # a folder of that name is refused before anything is written
        try:
            with (
                refusing_full_disk(f"{self}/{name}"),
                self.system.open_output_stream(self.path_of(partial)) as stream,
            ):
                yield Sink(stream)
            if not whole:
                self._settle(partial, name)
        except BaseException:
            if not whole:
                self.delete(partial)
            raise

    def _settle(self, partial: str, name: str) -> None:
        """Let a written file outlast a power cut, and give it its name."""
        if self.system.type_name == "local":
            with Path(self.path_of(partial)).open("rb") as file:
                os.fsync(file.fileno())
        self.system.move(self.path_of(partial), self.path_of(name))

    def open_verified(self, name: str, sha256: str) -> Any:
        """A file that a checkpoint names, after its checksum has been checked."""
        try:
            with self.system.open_input_stream(self.path_of(name)) as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise Refusal(f"{self.path_of(name)}: missing; the checkpoint names it") from error
        if found != sha256:
            raise Refusal(
                f"{self.path_of(name)}: altered or damaged: its checksum is not the one in the"
                " checkpoint"
            )
        return self.system.open_input_file(self.path_of(name))

    def list_files(self) -> list[str]:
        """Its files."""
        from pyarrow.fs import FileSelector, FileType

        found = self.system.get_file_info(FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == FileType.File)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name; a folder of that name is refused."""
        from pyarrow.fs import FileType

        kind = self.system.get_file_info(self.path_of(name)).type
        if kind == FileType.Directory:
            raise Refusal(f"{self}/{name}: a folder; a file, or none, expected")
        return bool(kind == FileType.File)

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.has(name):
            self.system.delete_file(self.path_of(name))

    def is_empty(self) -> bool:
        """Whether there is nothing in it, or it does not exist."""
        from pyarrow.fs import FileSelector, FileType

        if self.system.get_file_info(self.path).type == FileType.File:
            return False
        return not self.system.get_file_info(FileSelector(self.path, allow_not_found=True))

    def remove(self) -> None:
        """Delete it with all that is in it, if it is there."""
        if not self.is_empty():
            self.system.delete_dir(self.path)

    def path_of(self, name: str) -> str:
        """The path of a file in its file system."""
        return f"{self.path.rstrip('/')}/{name}"
