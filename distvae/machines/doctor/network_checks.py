"""Checks of Ray's token, of the ports that the network reaches, and of the shared storage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distvae.machines.cluster.shared_folder import STORAGE_REMEDY, RoundTrip
from distvae.machines.doctor.diagnosis import Diagnosis
from distvae.machines.doctor.facts import Facts
from distvae.machines.doctor.sockets import Listener, is_open

DASHBOARD_PORT, MLFLOW_PORT = 8265, 5000
MAX_LISTED = 6
"""Ports that a finding lists before it says how many more there are."""


@dataclass(frozen=True)
class Exposure:
    """A service that the network should not reach."""

    kind: str
    name: str
    remedy: str


LOOPBACK_ONLY = (
    Exposure(
        "dashboard",
        "Ray's dashboard",
        "ray start --head --dashboard-host=127.0.0.1, reached by 'ray dashboard' or ssh -L",
    ),
    Exposure(
        "mlflow",
        "MLflow",
        "listen on 127.0.0.1 ('distvae ui' does), reached by ssh -L 5000:127.0.0.1:5000",
    ),
)


def check_token(name: str, facts: Facts, several: bool) -> Iterator[Diagnosis]:
    """Check whether Ray asks for a token, and whether other users can read it."""
    mode, file = facts["access"]["mode"], facts["access"]["file"]
    permissions = facts["access"]["permissions"]
    if several and mode != "token":
        found = (
            f"off (RAY_AUTH_MODE={mode or 'unset'}): anybody on the network can run programs there"
        )
        remedy = (
            "export RAY_AUTH_MODE=token before every 'ray start'; 'ray get-auth-token --generate'"
            " makes a token"
        )
        yield Diagnosis("bad", "tokens", name, found, remedy)
    elif permissions is not None and permissions & 0o077:
        found = f"{file} has permissions {permissions:o}: other users can read it"
        yield Diagnosis("bad", "tokens", name, found, f"chmod 600 {file}")
    elif permissions is not None:
        found = f"{file} is for its owner alone"
        yield Diagnosis("ok", "tokens", name, f"on; {found}" if several else found)
    elif several:
        yield Diagnosis("ok", "tokens", name, "on; no file of it here")


def check_ports(
    name: str, facts: Facts, dashboard_port: int | None, several: bool
) -> Iterator[Diagnosis]:
    """Check the ports that the network reaches, and list those that only the machine reaches."""
    listeners: Sequence[Listener] | None = facts["listening"]
    if listeners is None:
        yield Diagnosis("info", "listening", name, "this system does not tell")
        return
    exposed: dict[str, list[Listener]] = {}
    internal = []
    for listener in listeners:
        if is_open(listener["address"]):
            exposed.setdefault(_service(listener, dashboard_port), []).append(listener)
        else:
            internal.append(listener)
    for service in LOOPBACK_ONLY:
        if service.kind in exposed:
            ports = _list_ports(exposed[service.kind])
            found = f"{service.name} is open to the network: {ports}"
            yield Diagnosis("bad", "listening", name, found, service.remedy)
    if "ray" in exposed:
        yield _check_ray_ports(name, exposed["ray"], facts["access"]["mode"], several)
    if "other" in exposed:
        found = f"other ports open to the network: {_list_ports(exposed['other'])}"
        yield Diagnosis("info", "listening", name, found)
    if internal:
        found = f"reached only from this machine: {_list_ports(internal)}"
        yield Diagnosis("info", "listening", name, found)


def _check_ray_ports(
    name: str, listeners: Sequence[Listener], mode: str, several: bool
) -> Diagnosis:
    """Check whether the ports of Ray that the network reaches are protected by a token."""
    ports = _list_ports(listeners)
    if mode == "disabled":
        remedy = "export RAY_AUTH_MODE=token before every 'ray start'; a private network besides"
        found = f"Ray is open to the network without a token: {ports}"
        return Diagnosis("bad" if several else "note", "listening", name, found, remedy)
    found = f"Ray, open to the network: {ports}"
    return Diagnosis("ok" if several else "info", "listening", name, found)


def _service(listener: Listener, dashboard_port: int | None) -> str:
    """Return the kind of a listener, judged by its port where its process cannot be seen."""
    if listener["process"]:
        return listener["kind"]
    ports = {DASHBOARD_PORT: "dashboard", dashboard_port: "dashboard", MLFLOW_PORT: "mlflow"}
    return ports.get(listener["port"], "other")


def _list_ports(listeners: Sequence[Listener]) -> str:
    """Return the ports of each process, in words."""
    by_process: dict[str, set[int]] = {}
    for listener in listeners:
        process = listener["process"] or "unknown process"
        by_process.setdefault(process, set()).add(listener["port"])
    parts = []
    for process, ports in sorted(by_process.items()):
        shown = " ".join(map(str, sorted(ports)[:MAX_LISTED]))
        if len(ports) > MAX_LISTED:
            shown += f" and {len(ports) - MAX_LISTED} more"
        parts.append(f"{process} {shown}")
    return ", ".join(parts)


def check_storage(
    trip: RoundTrip, names: Mapping[str, str], folder: str, remedy: str = STORAGE_REMEDY
) -> Iterator[Diagnosis]:
    """Check which machines can write to the storage, and which see the files of others."""
    for node, reason in trip.failed.items():
        expected = "a place that this machine may write to"
        yield Diagnosis("bad", "storage", names[node], f"{folder}: {reason}", expected)
    unseen: dict[str, list[str]] = {}
    for reader, writer in trip.unseen:
        unseen.setdefault(reader, []).append(names[writer])
    for reader, writers in unseen.items():
        name = names[reader]
        found = f"{folder}: what {', '.join(writers)} writes there is not seen by {name}"
        expected = f"a place that all machines share: {remedy}"
        yield Diagnosis("bad", "storage", name, found, expected)
    for node, name in names.items():
        if node not in unseen and node not in trip.failed:
            found = "can be written and read"
            if len(names) > 1:
                found = "written, and what each other machine writes is seen"
            yield Diagnosis("ok", "storage", name, f"{folder}: {found}")
