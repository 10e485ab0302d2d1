"""Calls to the operating system, with fallbacks for systems that lack a call.

Linux, for example, describes memory and processors in `/proc`; macOS does not. No other part of the
package uses these interfaces directly.
"""

import errno
import fcntl
import os
import platform
import socket
import struct
import sys
from contextlib import closing, suppress
from pathlib import Path

PROC = Path("/proc")
"""The folder of files about the machine and its processes."""
CGROUP = Path("/sys/fs/cgroup")
"""The folder of files about a container's limits."""


def read(file: Path) -> str:
    """Return the text of a kernel file, or '' if the system has no such file."""
    try:
        return file.read_text()
    except OSError:
        return ""


def read_fields(file: Path, separator: str = ":") -> dict[str, str]:
    """Return the fields of a file with lines like `key: value`."""
    pairs = (line.partition(separator) for line in read(file).splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def read_number(file: Path) -> int | None:
    """Return the number in a file, or None if the file has no number."""
    text = read(file).strip()
    return int(text) if text.isdigit() else None


CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "{}_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_{}_file",
    ),
)
"""For versions 2 and 1 of control groups: the files with a container's limit, its usage and the
details of its usage, and the name of the field for cached files in the details.
"""


def available_memory() -> int:
    """Return the free bytes of the machine, or of the container if it has fewer.

    Return the total memory of the machine if the system does not report its free memory.
    """
    found = [_free_on_machine(), *(_free_in_container(*files) for files in CGROUPS)]
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min((value for value in found if value is not None), default=whole)


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _free_on_machine() -> int | None:
    free = read_fields(PROC / "meminfo").get("MemAvailable")
    return None if free is None else 1024 * int(free.split()[0])


def _free_in_container(limit: str, used: str, parts: str, cached: str) -> int | None:
    """Return the free bytes of a container. Cached files count as free, as they can be dropped."""
    limit_bytes = read_number(CGROUP / limit)
    used_bytes = read_number(CGROUP / used)
    if limit_bytes is None or used_bytes is None:
        return None
    sizes = read_fields(CGROUP / parts, separator=" ")
    cache = sum(int(sizes.get(cached.format(kind), 0)) for kind in ("inactive", "active"))
    return min(limit_bytes, max(0, limit_bytes - used_bytes + cache))


def available_cores() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_kind() -> str:
    """Return the vendor, family and model of the processor, or else the system's name for it."""
    first = read(PROC / "cpuinfo").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    if "vendor_id" in fields:
        family, model = fields.get("cpu family"), fields.get("model")
        return f"{fields['vendor_id']} family {family} model {model}"
    arm = " ".join(fields.get(name, "") for name in ("CPU implementer", "CPU part"))
    return arm.strip() or platform.processor() or platform.machine()


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


HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost", "::1")


def stay_on_loopback() -> None:
    """Make gloo and NCCL listen on loopback only, unless the environment names an interface."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    for library in ("GLOO", "NCCL"):
        if names:
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", names[0])


def is_free(port: int, host: str = HOST) -> bool:
    """Return whether a port of an address is free; '' stands for all addresses."""
    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, port))
        except OSError:
            return False
        return True


GET_ADDRESS = 0x8915
"""Linux's call that returns an IPv4 address of an interface (SIOCGIFADDR)."""
REQUEST = "16sHH4s16x"
"""The struct of the call (ifreq): interface name, address family, port and address."""
ELSEWHERE = "203.0.113.1"
"""An address that no machine has (RFC 5737), so that packets to it take the default route."""


def listen_on_interface_of(address: str) -> None:
    """Make gloo and NCCL use the interface of an address, unless the environment names an
    interface.

    By default gloo uses the address of this machine's name, which may be 127.0.1.1 in /etc/hosts,
    and NCCL uses any interface.
    """
    name = os.environ.get("GLOO_SOCKET_IFNAME") or interface_of(address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # "=" stops prefix matches


def interface_of(address: str) -> str | None:
    """Return the name of the interface with an IPv4 address, or None if there is none."""
    try:
        wanted = socket.inet_aton(address)
    except OSError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            # If an interface has several addresses, Linux looks for the address in the request.
            asked = struct.pack(REQUEST, name.encode(), socket.AF_INET, 0, wanted)
            try:
                answered = fcntl.ioctl(probe, GET_ADDRESS, asked)
            except OSError:  # the interface lacks this address, or the system is not Linux
                continue
            if struct.unpack(REQUEST, answered)[-1] == wanted:
                return name
    return None


def own_address_towards(host: str) -> str | None:
    """Return the IPv4 address from which this machine reaches a host, or None if it cannot.

    If the host resolves to loopback, return the address that the default route uses.
    """
    address = _own_address_towards(host)
    if address is not None and address.startswith("127."):
        return _own_address_towards(ELSEWHERE)
    return address


def _own_address_towards(host: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # selects a route without sending anything
        except OSError:
            return None
        return str(probe.getsockname()[0])
