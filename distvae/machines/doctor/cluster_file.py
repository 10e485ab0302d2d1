"""The examination of a cluster file, and of its machines, before 'ray up'."""

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

from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_yaml
from distvae.machines.cluster.shared_folder import FileStep, round_trip
from distvae.machines.doctor import ssh_host
from distvae.machines.doctor.diagnosis import HERE, Diagnosis, merge_machines
from distvae.machines.doctor.network_checks import check_storage
from distvae.machines.doctor.ssh_host import Answer, SshHost
from distvae.machines.session.ray_session import SETTINGS

PLACEHOLDERS = re.compile(
    r"<[a-z][a-z -]*[a-z]>|\b(?:ami|fs|subnet|sg|vpc)-0{6,}\b|\bCHANGE_?ME\b|\bmy-project\b"
)
"""Text that a template has where something is to be filled in."""
COMMAND_LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
STORAGE_REMEDY = (
    "DISTVAE_STORAGE in its commands, or --storage, with a path on a disk that all of them mount,"
    " or a URI"
)
ClusterConfig = Mapping[str, Plain]
"""The content of a cluster file."""


def examine_cluster_file(file: Path, storage: str | None) -> list[Diagnosis]:
    """Return the diagnoses of a cluster file, and of the machines that it lists."""
    config = read_cluster_file(file)
    diagnoses = [
        *check_schema(config),
        *check_traps(config),
        *find_placeholders(file.read_text()),
        *check_prerequisites(config),
    ]
    machines = machines_of(config)
    if not machines:
        kind = _section(config, "provider").get("type")
        found = f"provider {kind}: 'ray up' makes the machines, so there are none to examine"
        diagnoses.append(Diagnosis("info", "machines", HERE, found))
        return merge_machines(diagnoses, [])
    with ThreadPoolExecutor(len(machines)) as pool:
        folder = storage or storage_of(config)
        diagnoses += _examine_machines(pool, machines, python_of(config), folder)
    return merge_machines(diagnoses, [host.address for host in machines])


def read_cluster_file(file: Path) -> ClusterConfig:
    """Return the content of a cluster file, or raise a Refusal if it is none."""
    try:
        config = read_yaml(file)
    except Refusal as refusal:
        raise Refusal(f"--file: {refusal}") from refusal
    if not isinstance(config, dict) or not isinstance(config.get("provider"), dict):
        raise Refusal(
            f"--file: {file}: no 'provider'; a cluster file such as cluster/cluster.yaml expected"
        )
    return config


def check_schema(config: ClusterConfig) -> Iterator[Diagnosis]:
    """Check a file by Ray's own rules.

    Ray stops at the first fault, so its schema then checks the fields one by one.
    """
    for name, value in SETTINGS.items():  # Ray reads them once, when it is imported
        os.environ.setdefault(name, value)
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.WARNING)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            validate_config(prepare_config(dict(config)))
    except Exception as error:  # of any kind: Ray fails in many ways on a wrong file
        why = getattr(error, "message", "") or str(error) or output.getvalue()
        yield from _schema_faults(config) or [_refused_by_ray(why)]
    else:
        yield Diagnosis("ok", "file", HERE, "Ray accepts it")


def _schema_faults(config: ClusterConfig) -> list[Diagnosis]:
    """Return the fields that Ray does not know, or whose values are of the wrong type."""
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    # Ray moves min_workers elsewhere before it checks the file.
    fields = {name: value for name, value in config.items() if name != "min_workers"}
    diagnoses = []
    for fault in jsonschema.Draft7Validator(schema).iter_errors(fields):
        if fault.validator != "required":
            path = ".".join(map(str, fault.absolute_path)) or "the file"
            diagnoses.append(_refused_by_ray(f"{path}: {fault.message}"))
    return diagnoses


def _refused_by_ray(why: str) -> Diagnosis:
    """Return the diagnosis of a file that Ray refuses."""
    found = f"Ray refuses it: {' '.join(why.split())[:300]}"
    return Diagnosis("bad", "file", HERE, found, "as 'distvae cluster init' writes it")


def check_traps(config: ClusterConfig) -> Iterator[Diagnosis]:
    """Check for settings that Ray accepts, but that do not do what is wanted."""
    head = "\n".join(_texts(config.get("head_start_ray_commands")))
    if "RAY_AUTH_MODE=token" not in commands_of(config):
        found = (
            "no command sets RAY_AUTH_MODE=token: whether Ray asks for a token depends on what lies"
            " on the machines"
        )
        remedy = "as 'distvae cluster init' writes it, for the head and for the workers"
        yield Diagnosis("note", "tokens", HERE, found, remedy)
    if "--dashboard-host=0.0.0.0" in head:
        found = "the head's commands open Ray's dashboard to the network"
        remedy = "without --dashboard-host; 'ray dashboard' reaches it"
        yield Diagnosis("bad", "file", HERE, found, remedy)
    if head and "--autoscaling-config" not in head:
        found = "without --autoscaling-config the head starts no workers"
        remedy = "ray start --head --autoscaling-config=~/ray_bootstrap_config.yaml"
        yield Diagnosis("bad", "file", HERE, found, remedy)
    is_local = _section(config, "provider").get("type") == "local"
    if is_local and "RAY_enable_autoscaler_v2=0" not in head:
        found = "Ray's second autoscaler loses all workers but one of such machines"
        remedy = (
            "export RAY_enable_autoscaler_v2=0; before 'ray start --head' in"
            " head_start_ray_commands"
        )
        yield Diagnosis("bad", "file", HERE, found, remedy)


def find_placeholders(text: str) -> Iterator[Diagnosis]:
    """Find the lines of a file in which something is still to be filled in."""
    for number, line in enumerate(text.splitlines(), 1):
        placeholder = PLACEHOLDERS.search(line.partition("#")[0])
        if placeholder:
            found = f"line {number}: '{placeholder[0]}' stands for something of yours"
            yield Diagnosis("bad", "file", HERE, found, "fill it in")


def check_prerequisites(config: ClusterConfig) -> Iterator[Diagnosis]:
    """Check what 'ray up' needs on the machine that runs it."""
    if shutil.which("rsync"):
        yield Diagnosis("ok", "rsync", HERE, "there")
    else:
        found = "missing; Ray copies files by it"
        yield Diagnosis("bad", "rsync", HERE, found, "apt-get install rsync")
    if not shutil.which("ssh"):
        yield Diagnosis("bad", "ssh", HERE, "missing", "apt-get install openssh-client")
    key = _section(config, "auth").get("ssh_private_key")
    if key and not Path(str(key)).expanduser().is_file():
        remedy = (
            f"ssh-keygen -t ed25519 -f {key}, then ssh-copy-id; or name another in"
            " auth.ssh_private_key"
        )
        yield Diagnosis("bad", "key", HERE, f"{key}: no such file", remedy)
    for remote, local in _section(config, "file_mounts").items():
        if not Path(str(local)).expanduser().exists():
            remedy = "make it, as the comment at the top of the file says"
            if not str(local).startswith(("/", "~")):
                remedy = (
                    "relative paths begin in the folder that 'ray up' is run in: the root of the"
                    " checkout"
                )
            found = f"{remote}: {local} is not here"
            yield Diagnosis("bad", "file_mounts", HERE, found, remedy)


def _section(config: ClusterConfig, name: str) -> Mapping[str, Plain]:
    """Return a section of a file, empty if it has none."""
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def machines_of(config: ClusterConfig) -> list[SshHost]:
    """Return the machines of the local provider, the head first; none of other providers."""
    provider, auth = _section(config, "provider"), _section(config, "auth")
    if provider.get("type") != "local" or "head_ip" not in provider:
        return []
    workers = provider.get("worker_ips")
    addresses = [provider["head_ip"], *(workers if isinstance(workers, list) else [])]
    key, proxy = auth.get("ssh_private_key"), auth.get("ssh_proxy_command")
    hosts = []
    for address in dict.fromkeys(map(str, addresses)):
        host = SshHost(
            address,
            user=str(auth.get("ssh_user") or ""),
            key=str(Path(str(key)).expanduser()) if key else None,
            proxy=str(proxy) if proxy else None,
        )
        hosts.append(host)
    return hosts


def commands_of(config: ClusterConfig) -> str:
    """Return all commands of a file, one a line."""
    lines = []
    for name in COMMAND_LISTS:
        lines += _texts(config.get(name))
    return "\n".join(lines)


def _texts(value: Plain) -> list[str]:
    """Return the items of a list as text."""
    return [str(line) for line in value] if isinstance(value, list) else []


def python_of(config: ClusterConfig) -> str:
    """Return the Python that a file's commands name, else the oldest that this package supports."""
    named = re.search(r"\bpython3\.\d+\b", commands_of(config))
    if named:
        return named[0]
    return "python" + str(metadata("distvae")["Requires-Python"]).lstrip(">=")


def storage_of(config: ClusterConfig) -> str | None:
    """Return the storage that a file's commands set."""
    found = re.search(r"""DISTVAE_STORAGE=["']?([^\s"';]+)""", commands_of(config))
    return found[1] if found else None


def _examine_machines(
    pool: ThreadPoolExecutor, machines: list[SshHost], python: str, storage: str | None
) -> Iterator[Diagnosis]:
    """Examine the machines side by side."""
    answers: dict[SshHost, Answer] = {}
    connections = pool.map(lambda host: ssh_host.connect(host, python), machines)
    for host, (diagnoses, answer) in zip(machines, connections, strict=True):
        yield from diagnoses
        if answer is not None:
            answers[host] = answer
    for host, answer in answers.items():
        yield from ssh_host.check_requirements(host, answer.facts(), python)
        yield from ssh_host.check_host_clock(host, answer)
    head = machines[0]
    if head in answers:
        yield from ssh_host.check_idle(head, answers[head].facts())
    yield from _check_shared_folder(pool, list(answers), storage)


def _check_shared_folder(
    pool: ThreadPoolExecutor, machines: list[SshHost], folder: str | None
) -> Iterator[Diagnosis]:
    """Check whether machines see what each other writes into a folder."""
    if folder is None:
        found = "the file names none, so it was not tried"
        yield Diagnosis("note", "storage", HERE, found, STORAGE_REMEDY)
    elif "://" in folder:
        without_secrets = folder.partition("?")[0].rpartition("@")[2]
        found = f"{without_secrets}: is tried once Ray runs: 'distvae doctor --address auto'"
        yield Diagnosis("info", "storage", HERE, found)
    elif machines:
        trip = round_trip(
            [host.address for host in machines],
            _ssh_step(pool, machines, lambda file: ssh_host.write_script(folder, file)),
            _ssh_step(pool, machines, lambda _: ssh_host.list_script(folder)),
            _ssh_step(pool, machines, lambda file: ssh_host.delete_script(folder, file)),
        )
        names = {host.address: host.address for host in machines}
        yield from check_storage(trip, names, folder, STORAGE_REMEDY)


def _ssh_step(
    pool: ThreadPoolExecutor, machines: list[SshHost], make_script: Callable[[str], str]
) -> FileStep[list[str]]:
    """Return a step of a round trip that machines do by ssh, side by side."""
    by_address = {host.address: host for host in machines}

    def run(address: str, file: str) -> list[str] | Refusal:
        return ssh_host.names_or_refusal(by_address[address].run(make_script(file)))

    def step(files: Mapping[str, str]) -> dict[str, list[str] | Refusal]:
        results = pool.map(run, files, files.values())
        return dict(zip(files, results, strict=True))

    return step
