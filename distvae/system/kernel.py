"""The files in which Linux tells about itself. Elsewhere there are none."""

from pathlib import Path

PROC = Path("/proc")
"""Facts about the machine and its processes."""
CGROUP = Path("/sys/fs/cgroup")
"""The limits of a container."""


def read(file: Path) -> str:
    """Return the text of a file of the kernel, or nothing if the system has no such file."""
    try:
        return file.read_text()
    except OSError:
        return ""


def read_fields(file: Path, separator: str = ":") -> dict[str, str]:
    """Return the values of lines such as `key: value`."""
    pairs = (line.partition(separator) for line in read(file).splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def read_number(file: Path) -> int | None:
    """Return the number in a file, or None if it holds none."""
    text = read(file).strip()
    return int(text) if text.isdigit() else None
