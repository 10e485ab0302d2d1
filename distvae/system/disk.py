"""Disk space, and file locks. The system releases a lock when its process ends, in any way."""

import errno
import fcntl
import os
from contextlib import suppress

UNABLE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""Errors of a file system that cannot reserve space."""


def reserve_space(file: int, length: int) -> None:
    """Set the length of a file, and reserve its disk space if the system can.

    Without a reservation, a process that maps the file is killed if the disk fills up later. Raise
    OSError if the disk has too little space. Some file systems do not report their size.
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
    """Wait for an exclusive lock of a file, or for a shared lock."""
    fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def is_locked(file: int) -> bool:
    """Return whether another process holds the lock of a file. If not, this process takes it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
