"""Read the files in which the Linux kernel describes the machine. Other systems lack them."""

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
