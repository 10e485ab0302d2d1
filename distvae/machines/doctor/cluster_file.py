"""A cluster file before 'ray up': what Ray says of it, and of what it needs here and on its
machines.
"""

import contextlib
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_yaml
from distvae.machines.doctor import ssh_host as hosts
from distvae.machines.doctor import verdicts
from distvae.machines.doctor.diagnosis import Line, merged
from distvae.machines.doctor.ssh_host import Answer, Host
from distvae.machines.ray_session import SETTINGS
from distvae.machines.shared_folder import FileStep, round_trip

HERE = "here"
BLANKS = re.compile(
    r"<[a-z][a-z -]*[a-z]>|\b(?:ami|fs|subnet|sg|vpc)-0{6,}\b|\bCHANGE_?ME\b|\bmy-project\b"
)
"""What a template has where something is to be filled in."""
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
STORAGE = (
    "DISTVAE_STORAGE in its commands, or --storage, with a path on a disk that all of them mount,"
    " or a URI"
)


def examine_cluster_file(file: Path, storage: str | None) -> list[Line]:
    """Lines about a cluster file, and about its machines where they are there already."""
    config = read(file)
    lines = [*schema(config), *traps(config), *blanks(file.read_text()), *needed(config)]
    machines = machines_of(config)
    if not machines:
        told = (
            f"provider {config.get('provider', {}).get('type')}: 'ray up' makes the machines, so"
            " none is there to ask"
        )
        return merged([*lines, Line("info", "machines", HERE, told)], [])
    with ThreadPoolExecutor(len(machines)) as pool:
        lines += _asked(pool, machines, python_of(config), storage or storage_of(config))
    return merged(lines, [host.address for host in machines])


def read(file: Path) -> dict[str, Any]:
    """The content of a cluster file."""
    try:
        config = read_yaml(file)
    except Refusal as refusal:
        raise Refusal(f"--file: {refusal}") from refusal
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise Refusal(
            f"--file: {file}: no 'provider'; a cluster file such as cluster/cluster.yaml expected"
        )
    return config


def schema(config: Mapping[str, Any]) -> Iterator[Line]:
    """What Ray's own check says; it stops at the first fault, so the fields are then looked at one
    by one.
    """
    for name, value in SETTINGS.items():  # Ray reads them once, when it is imported
        os.environ.setdefault(name, value)
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.WARNING)
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            validate_config(prepare_config(dict(config)))
    except (
        Exception
    ) as error:  # of whatever kind: Ray's check fails in many ways on a file that is wrong
        why = getattr(error, "message", "") or str(error) or told.getvalue()
        yield from _faults(config) or [_refused(why)]
    else:
        yield Line("ok", "file", HERE, "Ray accepts it")


def _faults(config: Mapping[str, Any]) -> list[Line]:
    """Fields that Ray does not know, or whose values are of the wrong type."""
    import jsonschema
    import ray.autoscaler

    rules = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    given = {
        name: value for name, value in config.items() if name != "min_workers"
    }  # which Ray moves elsewhere
    found = [
        fault
        for fault in jsonschema.Draft7Validator(rules).iter_errors(given)
        if fault.validator != "required"
    ]
    return [
        _refused(f"{'.'.join(map(str, fault.absolute_path)) or 'the file'}: {fault.message}")
        for fault in found
    ]


def _refused(why: str) -> Line:
    return Line(
        "bad",
        "file",
        HERE,
        f"Ray refuses it: {' '.join(why.split())[:300]}",
        "as in the checkout's cluster/",
    )


def traps(config: Mapping[str, Any]) -> Iterator[Line]:
    """What Ray accepts and does not do, or does and should not."""
    commands, heads = commands_of(config), "\n".join(_texts(config.get("head_start_ray_commands")))
    if "RAY_AUTH_MODE=token" not in commands:
        found = (
            "no command sets RAY_AUTH_MODE=token: whether Ray asks for a token depends on what lies"
            " on the machines"
        )
        yield Line(
            "note",
            "tokens",
            HERE,
            found,
            "as in the checkout's cluster/, for the head and for the workers",
        )
    if "--dashboard-host=0.0.0.0" in heads:
        found = "the head's commands open Ray's dashboard to the network"
        yield Line(
            "bad", "file", HERE, found, "without --dashboard-host; 'ray dashboard' reaches it"
        )
    if heads and "--autoscaling-config" not in heads:
        remedy = "ray start --head --autoscaling-config=~/ray_bootstrap_config.yaml"
        yield Line(
            "bad", "file", HERE, "without --autoscaling-config the head starts no workers", remedy
        )
    if config["provider"].get("type") == "local" and "RAY_enable_autoscaler_v2=0" not in heads:
        remedy = (
            "export RAY_enable_autoscaler_v2=0; before 'ray start --head' in"
            " head_start_ray_commands"
        )
        yield Line(
            "bad",
            "file",
            HERE,
            "Ray's second autoscaler loses all workers but one of such machines",
            remedy,
        )


def blanks(text: str) -> Iterator[Line]:
    """What is still to be filled in, by line."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := BLANKS.search(line.partition("#")[0]):
            yield Line(
                "bad",
                "file",
                HERE,
                f"line {number}: '{found[0]}' stands for something of yours",
                "fill it in",
            )


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
        remedy = (
            f"ssh-keygen -t ed25519 -f {key}, then ssh-copy-id; or name another in"
            " auth.ssh_private_key"
        )
        yield Line("bad", "key", HERE, f"{key}: no such file", remedy)
    mounts = config.get("file_mounts")
    for there, here in (mounts if isinstance(mounts, dict) else {}).items():
        if not Path(str(here)).expanduser().exists():
            remedy = "make it, as the file's head says"
            if not str(here).startswith(("/", "~")):
                remedy = (
                    "relative paths begin in the folder that 'ray up' is run in: the root of the"
                    " checkout"
                )
            yield Line("bad", "file_mounts", HERE, f"{there}: {here} is not here", remedy)


def _auth(config: Mapping[str, Any]) -> dict[str, Any]:
    auth = config.get("auth")
    return auth if isinstance(auth, dict) else {}


def machines_of(config: Mapping[str, Any]) -> list[Host]:
    """The machines of a file of the local provider, the head first; none where they are made or
    lent.
    """
    provider, auth = config["provider"], _auth(config)
    if provider.get("type") != "local" or "head_ip" not in provider:
        return []
    workers = provider.get("worker_ips")
    key = auth.get("ssh_private_key")
    addresses = dict.fromkeys(
        [provider["head_ip"], *(workers if isinstance(workers, list) else [])]
    )
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
    return "\n".join(line for name in COMMANDS for line in _texts(config.get(name)))


def _texts(value: object) -> list[str]:
    return [str(line) for line in value] if isinstance(value, list) else []


def python_of(config: Mapping[str, Any]) -> str:
    """The Python that a file's commands name, else the least that this package asks for."""
    if named := re.search(r"\bpython3\.\d+\b", commands_of(config)):
        return named[0]
    return "python" + str(metadata("distvae")["Requires-Python"]).lstrip(">=")


def storage_of(config: Mapping[str, Any]) -> str | None:
    """The storage that a file's commands set."""
    found = re.search(r"""DISTVAE_STORAGE=["']?([^\s"';]+)""", commands_of(config))
    return found[1] if found else None


def _asked(
    pool: ThreadPoolExecutor, machines: list[Host], python: str, storage: str | None
) -> Iterator[Line]:
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
            f"{storage.partition('?')[0].rpartition('@')[2]}: is tried once Ray runs: 'distvae"
            " doctor --address auto'"
        )
        yield Line("info", "storage", HERE, told)
    elif machines:
        trip = round_trip(
            [host.address for host in machines],
            _by_each(pool, machines, lambda file: hosts.writing(storage, file)),
            _by_each(pool, machines, lambda _: hosts.looking(storage)),
            _by_each(pool, machines, lambda file: hosts.deleting(storage, file)),
        )
        yield from verdicts.storage(
            trip, {host.address: host.address for host in machines}, storage, STORAGE
        )


def _by_each(
    pool: ThreadPoolExecutor, machines: list[Host], script: Callable[[str], str]
) -> FileStep[Any]:
    """A machine's part of a round trip, done by ssh."""
    by_address = {host.address: host for host in machines}

    def answer(address: str, file: str) -> Any:
        return hosts.said(by_address[address].run(script(file)))

    return lambda files: dict(zip(files, pool.map(answer, files, files.values()), strict=True))
