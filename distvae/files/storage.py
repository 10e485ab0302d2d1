"""Folders on this machine or behind a URI that pyarrow reads (file://, s3://, gs://, hdfs://);
Arrow files of rows, and addresses of SQLite databases.
"""

import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from distvae.files.paths import partial_name, replaced_file
from distvae.files.refusal import Refusal, cause, refusing_full_disk
from distvae.files.untrusted import (
    WRITTEN_FILE,
    check_plain,
    check_relative,
    decoding,
    is_text,
    path_inside,
    require_regular_file,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem, FileType
    from typing_extensions import Buffer


Stamp = tuple[int, int]
"""The size of a file, and the nanosecond of its last change: a file with another has changed."""
OBJECT_STORES = {"s3", "gcs", "abfs"}
"""File systems in which a closed file appears complete, and moving a file copies it."""
COPIED_BYTES = 2**20
"""Bytes of a file that are copied at once."""
GOOGLE = ("gs://", "gcs://")
RETRY_LIMIT, RETRY_SECONDS = "retry_limit_seconds", 3
"""The option for the seconds of retries when Google storage does not answer, and its value."""
AZURE = {"abfs", "abfss"}
"""Schemes whose URIs contain a container or an account before the `@`."""


def without_password(uri: str) -> str:
    """Return a URI without user and password. The parts that locate the place are kept."""
    scheme, separator, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    container = user.partition(":")[0] + at if scheme in AZURE else ""
    return f"{scheme}{separator}{container}{host}{slash}{path}"


class Sink(io.RawIOBase):
    """A file opened for writing, which counts its bytes and computes their checksum."""

    def __init__(self, stream: "BinaryIO | NativeFile") -> None:
        super().__init__()
        self.stream, self.count, self.digest = stream, 0, hashlib.sha256()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: "Buffer") -> int:
        """Write bytes or a buffer of bytes, and return their number."""
        size = memoryview(data).nbytes
        self.stream.write(data)
        self.digest.update(data)
        self.count += size
        return size

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self.count


class Folder:
    """A folder whose files are written completely or not at all."""

    def __init__(self, place: str | Path) -> None:
        from pyarrow.fs import LocalFileSystem

        self.address = str(place)
        """The path or URI as given."""
        self.remote = "://" in self.address
        self.place = self.address if self.remote else str(Path(place).absolute())
        """The path or URI that works in any process, whatever its current folder."""
        if self.remote:
            self.system, self.path = _open_uri(self.address)
        else:
            if not is_text(self.place):
                raise Refusal(
                    f"{self.place!r}: a name that is not in UTF-8; another place expected"
                )
            self.system, self.path = LocalFileSystem(), self.place

    def with_short_timeout(self) -> "Folder":
        """Return the same folder with a timeout of seconds for a storage that does not answer.

        Google's library otherwise retries for a quarter of an hour.
        """
        if not self.address.startswith(GOOGLE) or RETRY_LIMIT in self.address:
            return self
        separator = "&" if "?" in self.address else "?"
        return Folder(f"{self.address}{separator}{RETRY_LIMIT}={RETRY_SECONDS}")

    @classmethod
    def of(cls, place: "str | Path | Folder") -> "Folder":
        """Return the given folder, or the folder at a path or URI."""
        return place if isinstance(place, Folder) else cls(place)

    def __str__(self) -> str:
        """Return the address without password and options."""
        return without_password(self.address).partition("?")[0] if self.remote else self.address

    def subfolder(self, name: str) -> "Folder":
        """Return a folder in this one."""
        if not self.remote:
            return Folder(f"{self.address.rstrip('/')}/{name}")
        place, separator, options = self.address.partition("?")
        return Folder(f"{place.rstrip('/')}/{name}{separator}{options}")

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self.system.open_input_stream(self._path_to_read(name)) as stream:
            return bytes(stream.readall())

    def write(self, name: str, content: bytes) -> None:
        """Write a file, replacing the earlier file. An error leaves the earlier file unchanged."""
        with self.create(name) as sink:
            sink.write(content)

    def append(self, name: str, content: bytes) -> None:
        """Append to a file, so that it survives a power cut. An object store rewrites the file."""
        if self.system.type_name in OBJECT_STORES:
            before = self.read(name) if self.has(name) else b""
            self.write(name, before + content)
            return
        path = self.path_of(name)
        with refusing_full_disk(f"{self}/{name}"):
            if self.system.type_name == "local":
                with Path(path).open("ab") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            else:
                with self.system.open_append_stream(path) as stream:
                    stream.write(content)

    @contextmanager
    def create(self, name: str) -> Iterator[Sink]:
        """Open a new file, which gets its name when the block ends without an error."""
        with (
            refusing_full_disk(f"{self}/{name}"),
            self._path_to_write(name) as path,
            self.system.open_output_stream(path) as stream,
        ):
            yield Sink(stream)

    @contextmanager
    def _path_to_write(self, name: str) -> Iterator[str]:
        """Yield the path to write to: a temporary name, except in an object store."""
        path = self.path_of(name)
        if self.system.type_name in OBJECT_STORES:
            yield path
            return
        self.system.create_dir(self.path)
        self.has(name)  # refuses a folder with this name before writing
        if self.system.type_name == "local":
            with replaced_file(Path(path)) as partial:
                yield str(partial)
        else:
            with self._moved_file(name) as moved:
                yield moved

    @contextmanager
    def _moved_file(self, name: str) -> Iterator[str]:
        """Do the same as `replaced_file` in a remote file system."""
        partial = partial_name(name)
        try:
            yield self.path_of(partial)
            self.system.move(self.path_of(partial), self.path_of(name))
        except BaseException:
            self.delete(partial)
            raise

    def open_verified(self, name: str, sha256: str) -> "NativeFile":
        """Open a file named by a checkpoint, after verifying its checksum."""
        path = self._path_to_read(name)
        try:
            with self.system.open_input_stream(path) as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise Refusal(f"{path}: missing; the checkpoint names it") from error
        if found != sha256:
            raise Refusal(
                f"{path}: altered or damaged: its checksum is not the one in the checkpoint"
            )
        return self.system.open_input_file(path)

    def list_files(self) -> list[str]:
        """Return the sorted names of its files."""
        from pyarrow.fs import FileType

        return self._names_of(FileType.File)

    def list_subfolders(self) -> list[str]:
        """Return the sorted names of the folders in it."""
        from pyarrow.fs import FileType

        return self._names_of(FileType.Directory)

    def find(self, *names: str) -> list[str]:
        """Return the sorted paths of files with these names in its subfolders, at any depth."""
        paths = [PurePosixPath(path) for path in self.stamps()]
        return sorted(str(path) for path in paths if path.name in names and len(path.parts) > 1)

    def stamps(self, below: str = "") -> dict[str, Stamp]:
        """Return the files at any depth, or those in a subfolder, by their paths in this folder."""
        from pyarrow.fs import FileSelector, FileType

        within = self.path.rstrip("/") + "/"
        chosen = FileSelector((within + below).rstrip("/"), allow_not_found=True, recursive=True)
        return {
            info.path.removeprefix(within): (info.size, info.mtime_ns)
            for info in self.system.get_file_info(chosen)
            if info.type == FileType.File
        }

    def upload(self, file: Path, name: str) -> None:
        """Copy a file of this machine here, under a name that may have folders."""
        place, _, plain = name.rpartition("/")
        with (
            (self.subfolder(place) if place else self).create(plain) as sink,
            file.open("rb") as source,
        ):
            shutil.copyfileobj(source, sink, COPIED_BYTES)

    def download(self, name: str, file: Path) -> None:
        """Copy a file, whose name may have folders, to this machine."""
        path = f"{self.path.rstrip('/')}/{check_relative(name, str(self))}"
        with (
            self.system.open_input_stream(path) as source,
            replaced_file(file) as partial,
            partial.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, COPIED_BYTES)

    def remove_file(self, name: str) -> None:
        """Delete a file whose name may have folders, if it exists."""
        with suppress(FileNotFoundError):
            self.system.delete_file(f"{self.path.rstrip('/')}/{check_relative(name, str(self))}")

    def _names_of(self, kind: "FileType") -> list[str]:
        from pyarrow.fs import FileSelector

        found = self.system.get_file_info(FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == kind)

    def has(self, name: str) -> bool:
        """Return whether a file with this name exists. Refuse a folder with this name."""
        from pyarrow.fs import FileType

        kind = self.system.get_file_info(self.path_of(name)).type
        if kind == FileType.Directory:
            raise Refusal(f"{self}/{name}: a folder; a file, or none, expected")
        return bool(kind == FileType.File)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes; 0 for a missing file."""
        return int(self.system.get_file_info(self.path_of(name)).size or 0)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        with refusing_full_disk(f"{self}/{name}"):
            if self.has(name):
                self.system.delete_file(self.path_of(name))

    def is_empty(self) -> bool:
        """Return whether the folder is empty or does not exist."""
        from pyarrow.fs import FileSelector, FileType

        if self.system.get_file_info(self.path).type == FileType.File:
            return False
        return not self.system.get_file_info(FileSelector(self.path, allow_not_found=True))

    def remove(self) -> None:
        """Delete the folder and everything in it, if it exists."""
        if not self.is_empty():
            self.system.delete_dir(self.path)

    def _path_to_read(self, name: str) -> str:
        """Return the path of a file. Refuse a named pipe or a device, because reading it may never
        end.
        """
        path = self.path_of(name)
        if self.system.type_name == "local" and Path(path).exists():
            require_regular_file(Path(path), WRITTEN_FILE)
        return path

    def path_of(self, name: str) -> str:
        """Return the path of a file in its file system. The name may be untrusted."""
        check_plain(name, str(self))
        if self.system.type_name == "local":
            return str(path_inside(Path(self.path), name))
        return f"{self.path.rstrip('/')}/{name}"


def _open_uri(uri: str) -> "tuple[FileSystem, str]":
    """Return the file system of a URI, and the path in it."""
    from pyarrow.fs import FileSystem

    without_options = uri.partition("?")[0]
    if not without_options.partition("://")[2].strip("/"):
        raise Refusal(f"storage: {uri}: names no place; such as s3://bucket/runs expected")
    try:
        system, path = FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:  # OSError: a library is missing, or no server answers
        # text before the @ may be a password, even in a malformed URI
        shown = re.sub("(?<=://).*@", "", without_options)
        reason = cause(str(error).replace(uri, shown))
        raise Refusal(
            f"storage: {shown}: {reason}; a path or a URI that pyarrow reads expected"
        ) from None
    return system, path


def rows_column(values: NDArray[np.number], width: int) -> "pa.FixedSizeListArray":
    """Return numbers as a column of rows with this width, without a copy.

    `pyarrow.array` would import pandas, which takes longer than a short training.
    """
    import pyarrow as pa

    flat = np.ascontiguousarray(values).ravel()
    kind, buffer = pa.from_numpy_dtype(flat.dtype), pa.py_buffer(flat)
    numbers = pa.Array.from_buffers(kind, len(flat), [None, buffer])
    return pa.FixedSizeListArray.from_arrays(numbers, width)


def wrap_raw(raw: Path, path: Path, width: int) -> None:
    """Turn a file of raw rows into an Arrow file of one record batch, through a memory map; delete
    the raw file.
    """
    values = np.memmap(raw, np.float32, "r") if raw.stat().st_size else np.empty(0, np.float32)
    with path.open("wb") as stream:
        _write_record_batch(stream, values, width, "power")
    raw.unlink()


def save_arrow(path: Path, rows: NDArray[np.float32]) -> tuple[int, str]:
    """Write rows durably to an Arrow file; return its size in bytes and its SHA-256."""
    with replaced_file(path) as partial, partial.open("wb") as stream:
        sink = Sink(stream)
        _write_record_batch(sink, rows.ravel(), rows.shape[1], "row")
    return sink.count, sink.digest.hexdigest()


def _write_record_batch(
    stream: BinaryIO | Sink, values: NDArray[np.float32], width: int, name: str
) -> None:
    import pyarrow as pa

    batch = pa.record_batch([rows_column(values, width)], names=[name])
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2^31 values
    with pa.ipc.new_file(stream, batch.schema, options=options) as writer:
        writer.write_batch(batch)


def read_arrow(path: Path) -> NDArray[np.float32]:
    """Return (rows, width), read-only. Rows are loaded when they are touched."""
    import pyarrow as pa

    with decoding(path, "the file that was written there"):
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        batch.validate()
        column = batch.column(0)
        values = column.values.to_numpy(zero_copy_only=True)
        return np.asarray(values.reshape(-1, column.type.list_size))


MEANT = str.maketrans({character: quote(character) for character in "%?{}"})
"""Characters with a meaning in an address. Optuna replaces names within braces."""


def sqlite_uri(file: Path) -> str:
    """Return the address of a database. SQLite creates the database if it does not exist."""
    return f"sqlite:///{str(file).translate(MEANT)}"


def existing_sqlite_uri(file: Path) -> str:
    """Return the address of an existing database, which SQLite does not create.

    SQLite itself decodes the name once more. With mode rw, SQLite can roll back an interrupted
    transaction after a crash.
    """
    name = quote(str(file.absolute()))
    return f"sqlite:///file:{quote(name)}?mode=rw&uri=true"
