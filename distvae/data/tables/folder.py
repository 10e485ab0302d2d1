"""The folder that an ingest makes: partial ones beside it until all files are whole."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.data.tables.formats import SUFFIXES
from distvae.data.tables.plan import Plan
from distvae.data.tables.processes import KeptRefusal
from distvae.data.tables.rows import FACTS, MANIFEST
from distvae.data.tables.work import Work
from distvae.files.memory import gigabytes
from distvae.files.output import check_writable_folder
from distvae.files.refusal import Refusal

MADE = re.compile(rf"{re.escape(MANIFEST)}|{re.escape(FACTS)}|(train|val|test)-\d+\.arrow")
"""The names of the files that an ingest writes."""
OF_SYSTEMS = (".DS_Store", ".directory", "Thumbs.db", "desktop.ini")
"""The names of files that file managers put into folders."""
NOT_MADE = (
    "'distvae ingest' did not make it, and it would be lost with the folder that is replaced; a"
    " folder without it, or another name expected"
)


def claim(out: Path, force: bool) -> None:
    """Refuse to write over anything, or with force over anything but rows of ours."""
    if out.suffix.lower() in SUFFIXES:
        raise Refusal(
            f"{out}: the name of one more table; that of the folder to make expected last"
        )
    if not out.exists():
        check_writable_folder(out)
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    if not (out / MANIFEST).is_file():
        raise Refusal(
            f"{out}: exists, and 'distvae ingest' did not make it; the name of a new folder"
            " expected"
        )
    if not force:
        raise Refusal(f"{out}: exists; --force replaces it; or another name")
    if found := _strangers(out):
        raise Refusal(f"{out / found[0]}: {NOT_MADE}")


def _strangers(folder: Path) -> list[str]:
    """Return the names in a folder that neither an ingest nor a file manager gives."""
    names = {path.name for path in folder.iterdir()}.difference(OF_SYSTEMS)
    return sorted(name for name in names if not MADE.fullmatch(name))


@contextmanager
def whole_folder(out: Path, plan: Plan, resume: bool) -> Iterator[Work]:
    """Yield partial folders beside `out`; the files take its name when the block ends without an
    error. The remains of an interrupted ingest are deleted, or with `resume` gone on from.
    """
    from filelock import FileLock, Timeout

    partial, replaced = (out.with_name(f".{out.name}.{word}") for word in ("partial", "replaced"))
    lock = out.with_name(f".{out.name}.lock")
    # Processes of a killed ingest may still write for a moment: into folders of its own name.
    work = Work(plan, partial / plan.digest, partial / f"{plan.digest}.scratch")
    remains = False
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            try:
                _begin(work, out, resume)
                yield work
                _settle(work.folder, out, replaced)
            except KeptRefusal:
                remains = True
                raise
            finally:
                _remove(replaced, *([] if remains else [partial]))
                lock.unlink(missing_ok=True)
    except Timeout as error:
        raise Refusal(
            f"{out}: another ingest is writing it; another name expected, or wait"
        ) from error
    except OSError as error:
        raise Refusal(
            f"{out}: {error.strerror or error}; a disk with room and a writable folder expected"
        ) from error


def _begin(work: Work, out: Path, resume: bool) -> None:
    """Make the folders of an ingest, or go on with those of one that was killed."""
    partial = work.folder.parent
    if not resume:
        _remove(partial)
    elif partial.is_dir() and not work.scratch.is_dir():
        raise KeptRefusal(
            f"--resume: the ingest into {out} that was killed had other sources or settings; those"
            " expected, or no --resume, to begin anew"
        )
    work.make_folders()
    work.remove_torn()
    _require_room(out, work)


def _require_room(out: Path, work: Work) -> None:
    """Raise `Refusal` if what is still to be written does not fit on the disk."""
    rows, free = work.plan.rows, shutil.disk_usage(work.folder).free
    needed = 2 * 4 * work.plan.values * rows - work.written_bytes()
    if needed > free:
        raise KeptRefusal(
            f"{out}: {rows:,} rows need {gigabytes(needed)} of disk until they are in their places,"
            f" but {gigabytes(free)} are free"
        )


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _settle(partial: Path, out: Path, replaced: Path) -> None:
    """Give a finished folder its name, durably."""
    _sync(partial)
    try:
        if out.exists():
            if found := _strangers(out):  # since the ingest began
                raise KeptRefusal(
                    f"{out / found[0]}: {NOT_MADE}; the same command with --resume goes on"
                )
            out.rename(replaced)
        partial.rename(out)
    except BaseException:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        raise
    _sync(out.parent)


def _sync(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
