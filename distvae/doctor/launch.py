"""A cluster file before 'ray up': what Ray says of it, and of what it needs here and on its machines."""

import contextlib
import io
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from distvae.doctor import hosts, verdicts
from distvae.doctor.hosts import Answer, Host
from distvae.doctor.lines import Line, merged
from distvae.nodes import Asked, round_trip
from distvae.refusal import Refusal

HERE = "here"
BLANKS = re.compile(r"<[a-z][^<>]*>|\b(?:ami|fs|subnet|sg|vpc)-0{6,}\b|\bCHANGE_?ME\b|\bmy-project\b")
"""What a template has where something is to be filled in."""
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
STORAGE = "DISTVAE_STORAGE in its commands, or --storage, with a path on a disk that all of them mount, or a URI"


def of_file(file: Path, storage: str | None) -> list[Line]:
    """Lines about a cluster file, and about its machines where they are there already."""
    config = read(file)
    lines = [*schema(config), *blanks(file.read_text()), *needed(config)]
    machines = machines_of(config)
    if not machines:
        told = (
            f"provider {config.get('provider', {}).get('type')}: 'ray up' makes the machines, so none is there to ask"
        )
        return merged([*lines, Line("info", "machines", HERE, told)], [])
    with ThreadPoolExecutor(len(machines)) as pool:
        lines += _asked(pool, machines, python_of(config), storage or storage_of(config))
    return merged(lines, [host.address for host in machines])


def read(file: Path) -> dict[str, Any]:
    """The content of a cluster file."""
    import yaml

    try:
        config = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"--file: {file}: {error}; a cluster file such as cluster/cluster.yaml expected") from error
    except yaml.YAMLError as error:
        raise Refusal(f"--file: {file}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise Refusal(f"--file: {file}: no 'provider'; a cluster file such as cluster/cluster.yaml expected")
    return config


def schema(config: Mapping[str, Any]) -> Iterator[Line]:
    """What Ray's own check says."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            validate_config(prepare_config(dict(config)))
    except Exception as error:  # of whatever kind: Ray's check fails in many ways on a file that is wrong
        where = ".".join(str(part) for part in getattr(error, "absolute_path", ()))
        why = getattr(error, "message", "") or str(error) or told.getvalue()
        found = f"{where + ': ' if where else ''}{' '.join(why.split())[:300]}"
        yield Line("bad", "file", HERE, f"Ray refuses it: {found}", "as in cluster/cluster.yaml of the checkout")
    else:
        yield Line("ok", "file", HERE, "Ray accepts it")


def blanks(text: str) -> Iterator[Line]:
    """What is still to be filled in, by line."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := BLANKS.search(line.partition("#")[0]):
            yield Line("bad", "file", HERE, f"line {number}: '{found[0]}' stands for something of yours", "fill it in")


def needed(config: Mapping[str, Any]) -> Iterator[Line]:
    """What 'ray up' needs on the machine that runs it."""
    if shutil.which("rsync"):
        yield Line("ok", "rsync", HERE, "there")
    else:
        yield Line("bad", "rsync", HERE, "missing; Ray copies files by it", "apt-get install rsync")
    if not shutil.which("ssh"):
        yield Line("bad", "ssh", HERE, "missing", "apt-get install openssh-client")
    key = _auth(config).get("ssh_private_key")
    if key and not Path(key).expanduser().is_file():
        remedy = f"ssh-keygen -t ed25519 -f {key}, then ssh-copy-id; or name another in auth.ssh_private_key"
        yield Line("bad", "key", HERE, f"{key}: no such file", remedy)
    mounts = config.get("file_mounts")
    for there, here in (mounts if isinstance(mounts, dict) else {}).items():
        if not Path(str(here)).expanduser().exists():
            remedy = "relative paths begin in the folder that 'ray up' is run in: the root of the checkout"
            yield Line("bad", "file_mounts", HERE, f"{there}: {here} is not here", remedy)


def _auth(config: Mapping[str, Any]) -> dict[str, Any]:
    auth = config.get("auth")
    return auth if isinstance(auth, dict) else {}


def machines_of(config: Mapping[str, Any]) -> list[Host]:
    """The machines of a file of the local provider, the head first; none where they are made or lent."""
    provider, auth = config["provider"], _auth(config)
    if provider.get("type") != "local" or "head_ip" not in provider:
        return []
    workers = provider.get("worker_ips")
    key = auth.get("ssh_private_key")
    addresses = dict.fromkeys([provider["head_ip"], *(workers if isinstance(workers, list) else [])])
    return [
        Host(
            str(address),
            str(auth.get("ssh_user") or ""),
            str(Path(key).expanduser()) if key else None,
            auth.get("ssh_proxy_command"),
        )
        for address in addresses
    ]


def commands_of(config: Mapping[str, Any]) -> str:
    """All commands of a file, one a line."""
    return "\n".join(str(line) for name in COMMANDS for line in config.get(name) or [])


def python_of(config: Mapping[str, Any]) -> str:
    """The Python that a file's commands name, else the least that this package asks for."""
    if named := re.search(r"\bpython3\.\d+\b", commands_of(config)):
        return named[0]
    return "python" + str(metadata("distvae")["Requires-Python"]).lstrip(">=")


def storage_of(config: Mapping[str, Any]) -> str | None:
    """The storage that a file's commands set."""
    found = re.search(r"""DISTVAE_STORAGE=["']?([^\s"';]+)""", commands_of(config))
    return found[1] if found else None


def _asked(pool: ThreadPoolExecutor, machines: list[Host], python: str, storage: str | None) -> Iterator[Line]:
    """What the machines say, all side by side."""
    answers: dict[Host, Answer] = {}
    for host, (lines, answer) in zip(
        machines, pool.map(lambda host: hosts.reached(host, python), machines), strict=True
    ):
        yield from lines
        if answer is not None:
            answers[host] = answer
    for host, answer in answers.items():
        yield from hosts.fit(host, answer.facts(), python)
        yield from hosts.time_of(host, answer)
    if machines[0] in answers:
        yield from hosts.busy(machines[0], answers[machines[0]].facts())
    yield from shared(pool, list(answers), storage)


def shared(pool: ThreadPoolExecutor, machines: list[Host], storage: str | None) -> Iterator[Line]:
    """Whether machines see what each other writes into a folder."""
    if storage is None:
        yield Line("note", "storage", HERE, "the file names none, so it was not tried", STORAGE)
    elif "://" in storage:
        told = (
            f"{storage.partition('?')[0].rpartition('@')[2]}: is tried once Ray runs: 'distvae doctor --address auto'"
        )
        yield Line("info", "storage", HERE, told)
    elif machines:
        trip = round_trip(
            [host.address for host in machines],
            _by_each(pool, machines, lambda file: hosts.writing(storage, file)),
            _by_each(pool, machines, lambda _: hosts.looking(storage)),
            _by_each(pool, machines, lambda file: hosts.deleting(storage, file)),
        )
        yield from verdicts.storage(trip, {host.address: host.address for host in machines}, storage, STORAGE)


def _by_each(pool: ThreadPoolExecutor, machines: list[Host], script: Callable[[str], str]) -> Asked:
    """A machine's part of a round trip, done by ssh."""
    by_address = {host.address: host for host in machines}

    def answer(address: str, file: str) -> Any:
        return hosts.said(by_address[address].run(script(file)))

    return lambda files: dict(zip(files, pool.map(answer, files, files.values()), strict=True))
