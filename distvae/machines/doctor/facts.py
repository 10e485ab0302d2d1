"""Facts about a machine as plain data.

The doctor sends these functions to other machines by value, so they use nothing but Python's
standard library and this package.
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
from urllib.parse import unquote, urlparse

from distvae.files.plain import Tree
from distvae.machines.doctor.sockets import list_listeners
from distvae.system import memory
from distvae.system.processors import available_cores

Facts = Tree
"""Plain data, as JSON has it."""
SHARED_MEMORY = Path("/dev", "shm")
"""The folder in which Ray and torch keep what processes share."""
SHIPPED_CODE = "runtime_resources"
"""A part of the path of code that Ray brought to a machine for one job."""
COUNT_SECONDS = 90
"""Seconds in which torch has to count the GPUs."""
COUNT_GPUS = """
import torch
try:
    torch.cuda.init()
    print(torch.cuda.device_count())
except (RuntimeError, AssertionError) as error:
    print(0, *str(error).split())
"""


def gather_facts() -> Facts:
    """Return all facts about the machine on which this runs."""
    temporary = Path(tempfile.gettempdir())
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "packages": installed_packages(),
        "source": installed_source(),
        "cpus": cpu_facts(),
        "gpus": gpu_facts(),
        "memory": {"free": memory.available_memory(), "limit": memory.memory_limit()},
        "shared_memory": disk_space(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None,
        "temporary": {"place": str(temporary)} | (disk_space(temporary) or {}),
        "pesq": pesq_facts(),
        "access": access_facts(),
        "listening": list_listeners(),
    }


def read_clock() -> float:
    """Return the seconds since 1970 by this machine's clock."""
    return time.time()


def installed_packages() -> dict[str, str]:
    """Return the versions of installed packages by normalised name.

    Of two with one name the first on the path counts, as for an import.
    """
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        found.setdefault(normalised(distribution.metadata["Name"] or ""), distribution.version)
    return found


def normalised(name: str) -> str:
    """Return the name of a package in the one spelling that indexes use."""
    return name.lower().replace("_", "-").replace(".", "-")


def installed_source() -> Facts | None:
    """Return the folder of the package's installed source, and its digest.

    Code that Ray brought for a job does not count as installed.
    """
    folder = _source_folder()
    if folder is None:
        return None
    return {"folder": str(folder), "digest": source_digest(folder)}


def source_digest(folder: Path) -> str:
    """Return a digest of the source files below a folder, wherever the folder lies.

    What a checkout has beside the package does not count: an installed package contains it.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        left_out = "__pycache__" in path.parts or folder / "checkout" in path.parents
        if path.is_file() and not left_out and not path.name.startswith("."):
            total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]


def _source_folder() -> Path | None:
    """Return the folder from which Python imports this package, if it is installed."""
    path = [entry for entry in sys.path if SHIPPED_CODE not in entry]
    spec = PathFinder.find_spec("distvae", path)
    if spec is not None and spec.origin:
        return Path(spec.origin).parent
    try:
        installed = importlib.metadata.distribution("distvae")
    except importlib.metadata.PackageNotFoundError:
        return None
    url = json.loads(installed.read_text("direct_url.json") or "{}").get("url", "")
    folder = Path(unquote(urlparse(url).path)) / "distvae"
    if not url.startswith("file:") or not folder.is_dir():
        folder = Path(str(installed.locate_file("distvae")))
    return folder if folder.is_dir() else None


def cpu_facts() -> Facts:
    """Return the machine's processors, those that this process may use, and the load."""
    machine = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"machine": machine, "allowed": available_cores(), "quota": cpu_quota(), "load": load}


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the processors' worth of time that a container may use, or None without a limit.

    The kernel writes it to other files in version 2 of its control groups than in version 1.
    """
    version_2, version_1 = cgroup / "cpu.max", cgroup / "cpu"
    if version_2.exists():
        limit, period = version_2.read_text().split()
    elif (version_1 / "cpu.cfs_quota_us").exists():
        limit = (version_1 / "cpu.cfs_quota_us").read_text().strip()
        period = (version_1 / "cpu.cfs_period_us").read_text().strip()
    else:
        return None
    return int(limit) / int(period) if limit.isdigit() else None


def gpu_facts() -> Facts:
    """Return the number of NVIDIA devices, and of those that torch can use.

    A process of its own counts the latter, because Ray may hide GPUs from this one.
    """
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if not devices:
        return {"devices": 0, "usable": 0, "why": ""}
    environment = dict(os.environ)
    if not environment.get("CUDA_VISIBLE_DEVICES"):
        environment.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        done = subprocess.run(
            [sys.executable, "-c", COUNT_GPUS],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=COUNT_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        why = f"torch could not be asked: {type(error).__name__}"
        return {"devices": devices, "usable": 0, "why": why}
    last_line = done.stdout.strip().rpartition("\n")[2]
    count, _, why = last_line.partition(" ")
    return {"devices": devices, "usable": int(count), "why": why}


def disk_space(place: Path) -> dict[str, int] | None:
    """Return the free and total bytes of the disk that holds a place, or will hold it."""
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        found = shutil.disk_usage(place)
    except OSError:
        return None
    return {"free": found.free, "total": found.total}


def disk_space_at(place: str) -> dict[str, int] | None:
    """Return the free and total bytes of the disk behind a path."""
    return disk_space(Path(place))


def pesq_facts() -> Facts:
    """Return whether PESQ can be computed, and what there is to build it with."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    found: Facts = {
        "works": True,
        "why": "",
        "compiler": bool(shutil.which("cc")),
        "headers": headers.exists(),
    }
    try:
        importlib.import_module("pesq")
    except Exception as error:  # of any kind: a compiled module fails in many ways
        found |= {"works": False, "why": " ".join(str(error).split())}
    return found


def access_facts() -> Facts:
    """Return how Ray is protected on this machine; never the token itself."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    permissions = file.stat().st_mode & 0o777 if file.is_file() else None
    return {"mode": _access_mode(), "file": str(file), "permissions": permissions}


def _access_mode() -> str:
    """Return the mode of the Ray that runs this process, or the one that is set."""
    ray = sys.modules.get("ray._raylet")
    if ray is None:
        return os.environ.get("RAY_AUTH_MODE", "")
    uses_token = ray.get_authentication_mode() == ray.AuthenticationMode.TOKEN
    return "token" if uses_token else "disabled"
