"""What facts mean: pure functions from what machines tell to lines, each with what to do where
something is wrong.
"""

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from distvae.machines.doctor.diagnosis import Line, size
from distvae.machines.doctor.facts import Facts, normalised
from distvae.machines.doctor.sockets import is_open
from distvae.machines.shared_folder import STORAGE_REMEDY, RoundTrip

MIB, GIB = 2**20, 2**30
INSTALL = "pip install -c requirements.lock -e ."
SKEW = 1.0  # seconds that clocks may differ by
DASHBOARD = 8265
NAMED = 6  # packages or ports named in a line before it says how many more


def programs(name: str, there: Facts, here: Facts) -> Iterator[Line]:
    """Python and the packages that this one asks for: the same as the driver's, or one line for
    each that differs.
    """
    if there["python"] != here["python"]:
        yield _differs(name, "Python", there["python"], here["python"])
    differing = [
        package for package in declared() if _version(there, package) != _version(here, package)
    ]
    for package in differing:
        yield _differs(name, package, _version(there, package), _version(here, package))
    if there["python"] == here["python"] and not differing:
        versions = [
            f"{package} {_version(here, package)}" for package in ("torch", "ray", "mlflow")
        ]
        yield Line(
            "ok",
            "programs",
            name,
            f"Python {here['python']}, {', '.join(versions)} and the rest as here",
        )


def _differs(name: str, what: str, there: str, here: str) -> Line:
    remedy = (
        f"install the same on every machine: {INSTALL}"
        if what != "Python"
        else f"the Python {here} there"
    )
    return Line("bad", what, name, f"{there}, but {here} here", remedy)


def _version(facts: Facts, package: str) -> str:
    return str(facts["packages"].get(package, "missing"))


def declared() -> list[str]:
    """The packages that this one asks for, itself first."""
    try:
        lines = requires("distvae") or []
    except PackageNotFoundError:
        lines = []
    names = [line.partition(";")[0] for line in lines if "extra ==" not in line]
    return [
        "distvae",
        *(normalised(name.split("[")[0].split(">")[0].split("=")[0].strip()) for name in names),
    ]


def pins(lock: str) -> dict[str, str]:
    """The versions that a lock names."""
    lines = [
        line.partition("==")
        for line in lock.splitlines()
        if "==" in line and not line.startswith("#")
    ]
    return {normalised(name.strip()): version.strip() for name, _, version in lines}


def pinned(name: str, here: Facts, wanted: Mapping[str, str]) -> Iterator[Line]:
    """What is installed against what the lock pins; other versions may work."""
    others = [
        f"{package} {here['packages'][package]} ({version})"
        for package, version in wanted.items()
        if package in here["packages"] and here["packages"][package].partition("+")[0] != version
    ]
    if missing := [package for package in declared() if package not in here["packages"]]:
        yield Line("bad", "packages", name, f"missing: {', '.join(missing)}", INSTALL)
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        found = f"not what requirements.lock pins: {', '.join(others[:NAMED])}{more}"
        yield Line(
            "note",
            "packages",
            name,
            found,
            f"other versions may work; these are known to: {INSTALL}",
        )
    elif not missing:
        told = ", ".join(
            f"{package} {_version(here, package)}" for package in ("torch", "ray", "mlflow")
        )
        yield Line(
            "ok",
            "packages",
            name,
            f"Python {here['python']}, {told} and the rest as requirements.lock pins",
        )


def code(name: str, there: Facts, here: Facts) -> Iterator[Line]:
    """The installed source against the driver's."""
    own, other = here["source"], there["source"]
    if other is None:
        yield Line("bad", "code", name, "distvae is not installed", INSTALL)
    elif own is not None and own["digest"] != other["digest"]:
        found = f"{other['digest']} in {other['folder']}, but {own['digest']} here"
        remedy = (
            "what is started from here brings its own; what is started there does not: 'ray up'"
            " brings it up to date"
        )
        yield Line("note", "code", name, found, remedy)
    else:
        yield Line(
            "ok",
            "code",
            name,
            f"distvae {there['packages'].get('distvae', '')}, source {other['digest']}",
        )


def processors(name: str, facts: Facts, counted: float | None) -> Iterator[Line]:
    """Processors that may be used, whether others use them, and whether Ray counts more."""
    cpus = facts["cpus"]
    usable = min(cpus["allowed"], cpus["quota"] or cpus["allowed"])
    parts = (
        [f"{usable:g} of {cpus['machine']} may be used"]
        if usable < cpus["machine"]
        else [f"{usable:g}"]
    )
    if counted is not None:
        parts.append(f"Ray counts {counted:g}")
    found = ", ".join(parts)
    if counted is not None and counted > usable:
        remedy = (
            "trials side by side get in each other's way: ray start"
            f" --num-cpus={max(1, int(usable))}"
        )
        yield Line("note", "processors", name, found, remedy)
    elif cpus["load"] is not None and cpus["load"] > 1.5 * cpus["machine"]:
        wanting = f"{found}; {cpus['load']:.1f} processes want to run"
        yield Line(
            "note",
            "processors",
            name,
            wanting,
            "training is slow until others have ended: top tells who",
        )
    else:
        yield Line("ok", "processors", name, found)


def graphics(name: str, facts: Facts, counted: float | None) -> Iterator[Line]:
    """GPUs that are there, that torch can use, and that Ray counts."""
    gpus = facts["gpus"]
    told = f"{gpus['devices']} there, torch can use {gpus['usable']}" + (
        f" ({gpus['why']})" if gpus["why"] else ""
    )
    if 0 < gpus["usable"] < gpus["devices"]:
        yield Line("note", "GPUs", name, told, "is CUDA_VISIBLE_DEVICES meant to hide the others?")
    elif gpus["usable"] < gpus["devices"]:
        remedy = "a torch built for CUDA and a driver as new as it: pip install torch, nvidia-smi"
        yield Line("bad", "GPUs", name, told, remedy)
    elif counted is not None and counted != gpus["devices"]:
        remedy = f"ray start --num-gpus={gpus['devices']}, or nothing: Ray finds them"
        yield Line("note", "GPUs", name, f"{told}, Ray counts {counted:g}", remedy)
    elif gpus["devices"]:
        yield Line("ok", "GPUs", name, told)
    else:
        yield Line("info", "GPUs", name, "none")


def memories(name: str, facts: Facts, store: float | None) -> Iterator[Line]:
    """Memory, what processes share of it, and Ray's object store within that."""
    free, limit = facts["memory"]["free"], facts["memory"]["limit"]
    found = f"{size(free)} free" + (
        f"; the container may take {size(limit)}" if limit is not None else ""
    )
    enough = free >= GIB
    remedy = (
        ""
        if enough
        else "end what takes it (top), give the container more, or run fewer trials side by side"
    )
    yield Line("ok" if enough else "bad", "memory", name, found, remedy)
    shared = facts["shared_memory"]
    if shared is None:
        return
    least = max(256 * MIB, store or 0)
    found = f"{size(shared['free'])} of {size(shared['total'])} free in /dev/shm"
    if store is not None:
        found += f", Ray's object store takes up to {size(store)}"
    if shared["total"] < least:
        remedy = "docker run --shm-size=2g; in Kubernetes an emptyDir of medium Memory at /dev/shm"
        yield Line(
            "bad", "shared memory", name, f"{found}; workers share memory through it", remedy
        )
    elif shared["free"] < 64 * MIB:
        yield Line("bad", "shared memory", name, found, "ls -l /dev/shm tells who fills it")
    else:
        yield Line("ok", "shared memory", name, found)


def disk(name: str, what: str, place: str, found: Mapping[str, int] | None) -> Iterator[Line]:
    """Room on the disk behind a place; Ray gives up on a disk that is full to a twentieth."""
    if found is None or "free" not in found:
        yield Line(
            "bad", what, name, f"{place}: cannot be looked at", "a folder that this user may use"
        )
        return
    told = f"{place}: {size(found['free'])} of {size(found['total'])} free"
    if found["free"] < GIB:
        yield Line("bad", what, name, told, "make room there")
    elif found["free"] < 0.05 * found["total"]:
        yield Line(
            "note",
            what,
            name,
            told,
            "Ray warns above 95 %, and lets no job keep objects on such a disk",
        )
    else:
        yield Line("ok", what, name, told)


def scores(name: str, facts: Facts) -> Iterator[Line]:
    """Whether PESQ can be computed, and why not."""
    pesq = facts["pesq"]
    if pesq["works"]:
        yield Line("ok", "PESQ", name, "can be computed")
        return
    lacks = [] if pesq["compiler"] else ["a C compiler (apt-get install gcc)"]
    lacks += [] if pesq["headers"] else ["Python's headers (apt-get install python3-dev)"]
    first = f"it needs {' and '.join(lacks)}; then " if lacks else ""
    found = f"left out of every judgement: {pesq['why']}"
    yield Line("note", "PESQ", name, found, f"{first}pip install -c requirements.lock pesq")


def tokens(name: str, facts: Facts, several: bool) -> Iterator[Line]:
    """Whether Ray asks for a token, and whether others can read it."""
    access = facts["access"]
    readable = access["permissions"] is not None and access["permissions"] & 0o077
    if several and access["mode"] != "token":
        remedy = (
            "export RAY_AUTH_MODE=token before every 'ray start'; 'ray get-auth-token --generate'"
            " makes a token"
        )
        found = (
            f"off (RAY_AUTH_MODE={access['mode'] or 'unset'}): anybody on the network runs programs"
            " there"
        )
        yield Line("bad", "tokens", name, found, remedy)
    elif readable:
        found = (
            f"{access['file']} has permissions {access['permissions']:o}: other users can read it"
        )
        yield Line("bad", "tokens", name, found, f"chmod 600 {access['file']}")
    elif several or access["permissions"] is not None:
        kept = (
            f"{access['file']} is for its owner alone"
            if access["permissions"] is not None
            else "no file of it here"
        )
        yield Line("ok", "tokens", name, f"on; {kept}" if several else kept)


def clocks(name: str, ahead: float, unsure: float) -> Iterator[Line]:
    """How far a clock is ahead of the driver's, known to half a round trip."""
    if abs(ahead) > SKEW + unsure:
        direction = "ahead of" if ahead > 0 else "behind"
        found = f"{abs(ahead):.1f} s {direction} this machine's"
        yield Line("bad", "clock", name, found, "timedatectl set-ntp true; chronyc makestep")
    else:
        yield Line("ok", "clock", name, f"within {SKEW:g} s of this machine's")


def doors(name: str, facts: Facts, told: int | None, several: bool) -> Iterator[Line]:
    """What the network reaches on a machine, and what only the machine itself does."""
    if facts["listening"] is None:
        yield Line("info", "listening", name, "this system does not tell")
        return
    sockets = [dict(socket, kind=_kind(socket, told)) for socket in facts["listening"]]
    outside = [socket for socket in sockets if is_open(socket["address"])]
    for kind, what, remedy in (
        (
            "dashboard",
            "Ray's dashboard",
            "ray start --head --dashboard-host=127.0.0.1, reached by 'ray dashboard' or ssh -L",
        ),
        (
            "mlflow",
            "MLflow",
            "listen on 127.0.0.1 ('distvae ui' does), reached by ssh -L 5000:127.0.0.1:5000",
        ),
    ):
        if reached := [socket for socket in outside if socket["kind"] == kind]:
            found = f"{what} is open to the network: {_ports(reached)}"
            yield Line("bad", "listening", name, found, remedy)
    rays = [socket for socket in outside if socket["kind"] == "ray"]
    if rays and facts["access"]["mode"] == "disabled":
        remedy = "export RAY_AUTH_MODE=token before every 'ray start'; a private network besides"
        found = f"Ray is open to the network without a token: {_ports(rays)}"
        yield Line("bad" if several else "note", "listening", name, found, remedy)
    elif rays:
        yield Line(
            "ok" if several else "info",
            "listening",
            name,
            f"Ray, open to the network: {_ports(rays)}",
        )
    if others := [socket for socket in outside if socket["kind"] == "other"]:
        yield Line("info", "listening", name, f"others, open to the network: {_ports(others)}")
    if inside := [socket for socket in sockets if not is_open(socket["address"])]:
        yield Line("info", "listening", name, f"reached from this machine alone: {_ports(inside)}")


def _kind(socket: Mapping[str, Any], told: int | None) -> str:
    """What a port is for; where its process cannot be seen, the port itself tells."""
    ports = {DASHBOARD: "dashboard", told: "dashboard", 5000: "mlflow"}
    return str(socket["kind"] if socket["process"] else ports.get(socket["port"], "other"))


def _ports(sockets: list[dict[str, Any]]) -> str:
    """Ports by process."""
    by_process: dict[str, list[int]] = {}
    for socket in sockets:
        by_process.setdefault(socket["process"] or "not told", []).append(socket["port"])
    return ", ".join(
        f"{process} {_some(sorted(set(ports)))}" for process, ports in sorted(by_process.items())
    )


def _some(ports: list[int]) -> str:
    more = f" and {len(ports) - NAMED} more" if len(ports) > NAMED else ""
    return f"{' '.join(map(str, ports[:NAMED]))}{more}"


def storage(
    trip: RoundTrip, names: Mapping[str, str], folder: str, remedy: str = STORAGE_REMEDY
) -> Iterator[Line]:
    """Who writes to the storage, and who sees what others write there."""
    for node, why in trip.failed.items():
        yield Line(
            "bad",
            "storage",
            names[node],
            f"{folder}: {why}",
            "a place that this machine may write to",
        )
    for reader in dict.fromkeys(reader for reader, _ in trip.unseen):
        unseen = [names[writer] for other, writer in trip.unseen if other == reader]
        found = f"{folder}: what {', '.join(unseen)} writes there is not seen by {names[reader]}"
        yield Line(
            "bad", "storage", names[reader], found, f"a place that all machines share: {remedy}"
        )
    blind = {reader for reader, _ in trip.unseen}
    for node, name in names.items():
        if node not in blind and node not in trip.failed:
            seen = f"{folder}: written, and what each other machine writes is seen"
            yield Line(
                "ok",
                "storage",
                name,
                seen if len(names) > 1 else f"{folder}: can be written and read",
            )
