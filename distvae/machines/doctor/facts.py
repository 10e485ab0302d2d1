"""What a machine tells of itself: plain data, gathered with nothing but Python, so that any machine
can be asked.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from distvae.files import memory
from distvae.machines.doctor.sockets import listening

Facts = dict[str, Any]
SHARED_MEMORY = Path("/dev", "shm")
"""Where Ray and torch keep what processes share."""
SHIPPED = "runtime_resources"
"""In the path of what Ray brought to a machine for one job."""
COUNT_GPUS = """
import torch
try:
    torch.cuda.init()
    print(torch.cuda.device_count())
except (RuntimeError, AssertionError) as error:
    print(0, *str(error).split())
"""


def gather() -> Facts:
    """All facts of the machine on which this runs."""
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "packages": packages(),
        "source": source(),
        "cpus": cpus(),
        "gpus": gpus(),
        "memory": {"free": memory.available_memory(), "limit": memory.memory_limit()},
        "shared_memory": room(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None,
        "temporary": {"place": tempfile.gettempdir()} | (room(Path(tempfile.gettempdir())) or {}),
        "pesq": pesq(),
        "access": access(),
        "listening": listening(),
    }


def clock() -> float:
    """Seconds since 1970, as this machine has it."""
    return time.time()


def packages() -> dict[str, str]:
    """Versions of what is installed, by normalised name; the first on the path counts, as for an
    import.
    """
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        found.setdefault(normalised(distribution.metadata["Name"] or ""), distribution.version)
    return found


def normalised(name: str) -> str:
    """The name of a package however it is spelt."""
    return name.lower().replace("_", "-").replace(".", "-")


def source() -> Facts | None:
    """Where the package's source lies on this machine, and its digest; what Ray brought for a job
    is not meant.
    """
    folder = _folder()
    return None if folder is None else {"folder": str(folder), "digest": digest(folder)}


def digest(folder: Path) -> str:
    """Of the source files below a folder, wherever it lies.

    Search spaces do not count: they are installed in the package, and lie beside it in a checkout.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        left_out = "__pycache__" in path.parts or path.parent == folder / "spaces"
        if path.is_file() and not left_out and not path.name.startswith("."):
            total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]


def _folder() -> Path | None:
    spec = PathFinder.find_spec("distvae", [entry for entry in sys.path if SHIPPED not in entry])
    if spec is not None and spec.origin:
        return Path(spec.origin).parent
    try:
        installed = importlib.metadata.distribution("distvae")
    except importlib.metadata.PackageNotFoundError:
        return None
    url = json.loads(installed.read_text("direct_url.json") or "{}").get("url", "")
    linked = Path(unquote(urlparse(url).path)) / "distvae"
    folder = (
        linked
        if url.startswith("file:") and linked.is_dir()
        else Path(str(installed.locate_file("distvae")))
    )
    return folder if folder.is_dir() else None


def cpus() -> Facts:
    """Processors of the machine, those that this process may use, and how many want to run."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"machine": os.cpu_count() or 1, "allowed": allowed, "quota": quota(), "load": load}


def quota(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Processors' worth of time that a container may use, by version 2 or 1 of the kernel's control
    groups.
    """
    if (file := cgroup / "cpu.max").exists():
        most, period = file.read_text().split()
    elif (file := cgroup / "cpu" / "cpu.cfs_quota_us").exists():
        most, period = (
            file.read_text().strip(),
            (file.parent / "cpu.cfs_period_us").read_text().strip(),
        )
    else:
        return None
    return int(most) / int(period) if most.isdigit() else None


def gpus() -> Facts:
    """NVIDIA's devices, and how many of them torch can use: in a process of its own, since Ray may
    hide them.
    """
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if not devices:
        return {"devices": 0, "usable": 0, "why": ""}
    seen = {
        name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES" or value
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", COUNT_GPUS],
            env=seen,
            capture_output=True,
            text=True,
            check=True,
            timeout=90,
        )
    except (subprocess.SubprocessError, OSError) as error:
        return {
            "devices": devices,
            "usable": 0,
            "why": f"torch could not be asked: {type(error).__name__}",
        }
    count, _, why = done.stdout.strip().rpartition("\n")[2].partition(" ")
    return {"devices": devices, "usable": int(count), "why": why}


def room(place: Path) -> dict[str, int] | None:
    """Bytes free to this user and in all on the disk behind a place, or behind the folder it will
    be made in.
    """
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        found = shutil.disk_usage(place)
    except OSError:
        return None
    return {"free": found.free, "total": found.total}


def behind(place: str) -> dict[str, int] | None:
    """The room behind a path."""
    return room(Path(place))


def pesq() -> Facts:
    """Whether PESQ can be computed, and if not, what there is to build it with."""
    headers = (Path(sysconfig.get_paths()["include"]) / "Python.h").exists()
    found: Facts = {
        "works": True,
        "why": "",
        "compiler": bool(shutil.which("cc")),
        "headers": headers,
    }
    try:
        importlib.import_module("pesq")
    except Exception as error:  # of whatever kind: a compiled module fails in many ways
        found |= {"works": False, "why": " ".join(str(error).split())}
    return found


def access() -> Facts:
    """How Ray is protected here; never the token itself."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    permissions = file.stat().st_mode & 0o777 if file.is_file() else None
    return {"mode": _mode(), "file": str(file), "permissions": permissions}


def _mode() -> str:
    """What the Ray that has this process goes by, else what is set."""
    if (ray := sys.modules.get("ray._raylet")) is not None:
        return (
            "token" if ray.get_authentication_mode() == ray.AuthenticationMode.TOKEN else "disabled"
        )
    return os.environ.get("RAY_AUTH_MODE", "")
