"""The folder of a sweep: locked while a sweep runs in it, and never replaced by accident."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distvae.files.atomic import finished_name
from distvae.files.output import atomic_file, prepare_folder
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import refuse_strange_entries
from distvae.train.run_folder import refuse_others_inside
from distvae.tune.resources import TrialResources
from distvae.tune.space import Space
from distvae.tune.sweep_file import (
    SWEEP_FILE,
    describe_arithmetic,
    describe_sweep,
    refuse_other_bits,
    refuse_other_sweep,
)

LOCK = ".sweep.lock"
"""The file that is locked while a sweep runs."""
NOTES = ".tune"
"""The subfolder that Ray Tune writes into while a sweep runs."""
KEPT = "tune"
"""The subfolder of the experiments of Ray Tune that are kept."""


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Hold the lock of a sweep's folder, and refuse a folder in which another sweep runs.

    A folder that was created here and stayed empty is deleted at the end.
    """
    from filelock import FileLock, Timeout

    created = not out.exists()
    refuse_strange_entries(out)
    prepare_folder(out, force=True)
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise Refusal(
            f"{out}: another sweep is running in it; wait for its end, or name another folder"
        ) from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        if created and not has_content(out):
            shutil.rmtree(out, ignore_errors=True)
        lock.release()


def has_content(out: Path) -> bool:
    """Return whether a folder contains more than the lock, and what was not finished writing."""
    if not out.is_dir():
        return False
    return any(path.name != LOCK and not finished_name(path.name) for path in out.iterdir())


def clear_folder(out: Path) -> None:
    """Delete everything in a folder except the lock.

    What says that it is a sweep's goes last, so that a deletion that is cut short can be repeated.
    """
    for path in sorted(out.iterdir(), key=lambda path: path.name == SWEEP_FILE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def refuse_folder(
    space: Space, out: Path, force: bool, resume: bool, resources: TrialResources
) -> None:
    """Refuse a folder that is not a sweep's, or whose sweep is neither to be resumed nor replaced.

    A sweep to be resumed must explore the same space and compute with the same arithmetic.
    """
    is_sweep = (out / SWEEP_FILE).is_file()
    if is_sweep and resume:
        refuse_other_sweep(space, out)
        refuse_other_bits(space, out, resources)
        return
    if is_sweep and force:
        refuse_others_inside(Folder(out), own=("trials/", f"{KEPT}/", f"{NOTES}/"))
        return
    if has_content(out) or (out.exists() and not out.is_dir()):
        if not is_sweep:
            raise Refusal(f"{out}: exists and holds no sweep; another name expected")
        raise Refusal(
            f"{out}: exists; --resume continues a sweep, --force replaces it and deletes all files"
            " in it; or name another folder"
        )


def new_experiment(out: Path, space: Space, kept: bool) -> Path:
    """Return the folder for Ray Tune to write into. Each part of a resumed sweep that is kept has
    its own.
    """
    if not kept:
        return out / NOTES / space.name
    number = 1
    while (folder := out / KEPT / f"{space.name}-{number}").exists():
        number += 1
    return folder


def prepare_sweep_folder(space: Space, out: Path, resume: bool, resources: TrialResources) -> None:
    """Write down what will be explored, after deleting an earlier sweep that is not resumed."""
    if not resume and (out / SWEEP_FILE).is_file():
        clear_folder(out)
    shutil.rmtree(out / NOTES, ignore_errors=True)
    facts = describe_sweep(space) | describe_arithmetic(space, resources)
    with atomic_file(out / SWEEP_FILE) as path:
        path.write_text(json.dumps(facts, indent=1) + "\n")
