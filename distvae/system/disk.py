"""Space on a disk, and locks on files. The system releases a lock however its process ends."""

import errno
import fcntl
import os
from contextlib import suppress

UNABLE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""Errors of a file system that cannot reserve space."""


def reserve_space(file: int, length: int) -> None:
    """Make a file so long, and reserve its space on the disk where the system can.

    A process that maps a file is killed if the disk is full later. Raise OSError if the disk has
    no room, before anything fills it. Some file systems do not tell their size.
    """
    disk = os.fstatvfs(file)
    if disk.f_blocks and length > disk.f_bavail * disk.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.truncate(file, length)
    with suppress(AttributeError):  # macOS has no such call
        try:
            os.posix_fallocate(file, 0, length)
        except OSError as error:
            if error.errno not in UNABLE:
                raise


def lock(file: int, *, shared: bool = False) -> None:
    """Wait for the lock of a file, alone or with others that share it."""
    fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def is_locked(file: int) -> bool:
    """Return whether another process holds the lock of a file. If none does, this one does then."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
