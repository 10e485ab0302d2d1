"""The doctor: examinations of this machine, of the machines of a Ray, and of a cluster file."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import read_yaml
from distvae.machines.cluster import (
    ANSWER_SECONDS,
    STORAGE_REMEDY,
    RoundTrip,
    live_machines,
    other_versions,
    program_versions,
    round_trip,
    run_on_nodes,
)
from distvae.machines.session import ray_session
from distvae.system import is_free

HERE = "here"
"""The machine that this process runs on, in findings."""
INSTALL = "the same on every machine: pip install -c requirements.lock -e ."
RAY_LOGS = "Ray's logs there: /tmp/ray/session_latest/logs; then end Ray there and start it again"
PORTS = {6379: "Ray's head", 8265: "Ray's dashboard", 10001: "Ray Client", 5000: "MLflow"}
"""Ports that a cluster uses on its head, and what listens there."""
CHILD_SECONDS = 90.0
"""Seconds that a process of the doctor has."""
COUNT_GPUS = "import torch; print(torch.cuda.device_count())"
JOIN_RAY = """
import sys
from distvae.machines.session import ray_session
with ray_session(sys.argv[1], 0):
    pass
"""


@dataclass(frozen=True)
class Finding:
    """An examination, its place, its result, and the remedy if the result is bad."""

    state: Literal["ok", "note", "bad"]
    """Fine; worth knowing; wrong."""
    what: str
    where: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return the finding on one line."""
        line = f"{self.state:4} {self.what:8} {self.where}: {self.found}"
        return f"{line} -> {self.remedy}" if self.remedy else line


class Facts(NamedTuple):
    """Facts that a machine tells of itself."""

    versions: Mapping[str, str]
    gpus: int
    """The number of GPUs that torch sees."""
    error: str
    """The reason why torch could not be asked."""


def examine_this_machine() -> Iterator[Finding]:
    """Yield the findings of this machine, without a Ray."""
    facts = gather_facts()
    yield check_versions(HERE, facts)
    devices = len(list(Path("/dev").glob("nvidia[0-9]*")))
    yield check_gpus(HERE, facts, devices, "/dev")
    for port, service in PORTS.items():
        yield check_port(port, service)


def examine_cluster(address: str, storage: str | None) -> Iterator[Finding]:
    """Yield the findings of the machines of a running Ray."""
    folder = Folder(storage) if storage else None
    waits = f"each machine has {ANSWER_SECONDS:.0f} s to answer"
    print(f"distvae: asking the Ray at {address}; {waits}", file=sys.stderr, flush=True)
    with ray_session(address, 0) as ray:
        yield check_token(address)
        machines = live_machines(ray)
        names = {node: machine.address for node, machine in machines.items()}
        for node, facts in run_on_nodes(names, gather_facts).items():
            if isinstance(facts, Refusal):
                yield Finding("bad", "answer", names.pop(node), str(facts), RAY_LOGS)
                continue
            yield check_versions(names[node], facts)
            yield check_gpus(names[node], facts, machines[node].gpus, "Ray")
        yield check_copies([int(machines[node].cpus) for node in names])
        if folder is not None:
            yield from check_folder(round_trip(names, folder), names, folder)


def examine_cluster_file(file: Path) -> Iterator[Finding]:
    """Yield the findings of a cluster file: whether the files that it names exist."""
    config = read_yaml(file)
    if not isinstance(config, dict) or "provider" not in config:
        raise Refusal(
            f"--file: {file}: no 'provider'; a file such as cluster/cluster.yaml expected"
        )
    named = {"auth.ssh_private_key": _section(config, "auth").get("ssh_private_key")}
    for remote, local in _section(config, "file_mounts").items():
        named[f"file_mounts: {remote}"] = local
    for field, path in named.items():
        if path is None:
            continue
        if Path(str(path)).expanduser().exists():
            yield Finding("ok", "file", HERE, f"{field}: {path} exists")
        else:
            remedy = "make it, or name another; a relative path begins where 'ray up' is run"
            yield Finding("bad", "file", HERE, f"{field}: {path} does not exist", remedy)


def _section(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return a section of a cluster file, empty if it has none."""
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def gather_facts() -> Facts:
    """Return facts about the machine on which this runs.

    Another process counts the GPUs, because Ray hides them from a process that asks for none.
    """
    done = _run_python(COUNT_GPUS, CUDA_VISIBLE_DEVICES=None)
    if done.returncode:
        return Facts(program_versions(), 0, _last_line(done.stderr))
    return Facts(program_versions(), int(_last_line(done.stdout)), "")


def _run_python(
    code: str, *arguments: str, **variables: str | None
) -> "subprocess.CompletedProcess[str]":
    """Run code in another process, with some variables set, and variables that are None unset."""
    environment = {
        name: value for name, value in (os.environ | variables).items() if value is not None
    }
    command = [sys.executable, "-c", code, *arguments]
    try:
        return subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer within {CHILD_SECONDS:g} s"
        return subprocess.CompletedProcess(command, 1, "", reason)


def _last_line(text: str) -> str:
    """Return the last line of a text."""
    return text.strip().rpartition("\n")[2]


def check_versions(where: str, facts: Facts) -> Finding:
    """Compare the versions of programs on a machine with the versions here."""
    if others := other_versions(facts.versions):
        return Finding("bad", "versions", where, "; ".join(others), INSTALL)
    found = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return Finding("ok", "versions", where, found)


def check_gpus(where: str, facts: Facts, counted: float, counter: str) -> Finding:
    """Compare the GPUs that torch sees with the GPUs that Ray, or the system, has."""
    found = f"torch sees {facts.gpus}, {counter} has {counted:g}"
    if facts.error:
        return Finding("bad", "GPUs", where, f"torch fails: {facts.error}", INSTALL)
    if facts.gpus < counted:
        remedy = "a torch built for CUDA, and a driver as new as it (nvidia-smi)"
        return Finding("bad", "GPUs", where, found, remedy)
    if facts.gpus > counted:
        remedy = f"ray start --num-gpus={facts.gpus}, if none is to be hidden"
        return Finding("note", "GPUs", where, found, remedy)
    return Finding("ok", "GPUs", where, found)


def check_port(port: int, service: str) -> Finding:
    """Check whether a port of this machine is free on all its addresses."""
    if is_free(port, ""):
        return Finding("ok", "port", HERE, f"{port} ({service}) is free")
    found = f"{port} ({service}) is taken"
    remedy = f"ss -ltnp 'sport = :{port}' shows by which program; another port if not by {service}"
    return Finding("note", "port", HERE, found, remedy)


def check_token(address: str) -> Finding:
    """Check whether a Ray refuses a process without a token."""
    no_token = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": None}
    done = _run_python(JOIN_RAY, address, **no_token)
    if done.returncode == 0:
        found = "Ray lets in a process without a token: anybody on the network can run programs"
        remedy = (
            "export RAY_AUTH_MODE=token before every 'ray start'; 'ray get-auth-token --generate'"
            " makes a token"
        )
        return Finding("bad", "token", address, found, remedy)
    if "AuthenticationError" in done.stderr:
        found = "Ray lets in this process with its token, and refuses a process without"
        return Finding("ok", "token", address, found)
    found = f"a process without a token fails, but not for want of it: {_last_line(done.stderr)}"
    return Finding("bad", "token", address, found, RAY_LOGS)


def check_copies(processors: Sequence[int]) -> Finding:
    """Check whether the copy of each worker has another machine, with a worker per processor."""
    workers, count = sum(processors), sum(map(bool, processors))
    found = f"room for {workers} workers on {count} machines"
    if not workers:
        remedy = "machines with processors: ray start --num-cpus"
        return Finding("bad", "copies", "all", found, remedy)
    if count == 1:
        remedy = "a second machine, if training is to go on from memory after the loss of one"
        return Finding("note", "copies", "all", f"{found}, and their copies beside them", remedy)
    return Finding("ok", "copies", "all", f"{found}; each has a copy on another machine")


def check_folder(trip: RoundTrip, names: Mapping[str, str], folder: Folder) -> Iterator[Finding]:
    """Check which machines write to a folder, and which see the files of all others."""
    unseen: dict[str, list[str]] = {}
    for reader, writer in trip.unseen:
        unseen.setdefault(reader, []).append(names[writer])
    for node, name in names.items():
        if node in trip.failed:
            remedy = "a place that this machine may write to"
            yield Finding("bad", "storage", name, f"{folder}: {trip.failed[node]}", remedy)
        elif node in unseen:
            found = f"{folder}: files that {', '.join(unseen[node])} writes are not seen"
            yield Finding("bad", "storage", name, found, STORAGE_REMEDY)
        else:
            yield Finding("ok", "storage", name, f"{folder}: files of all machines are seen")
