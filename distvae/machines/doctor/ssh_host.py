"""A machine before Ray runs on it, reached by ssh, and its diagnoses."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from distvae.files.refusal import Refusal
from distvae.machines.doctor.diagnosis import Diagnosis, format_bytes
from distvae.machines.doctor.hardware_checks import GIB, check_clock
from distvae.machines.running_lock import LOCK_FILE

CONNECT_SECONDS = 5
"""Seconds in which a machine has to answer."""
SCRIPT_SECONDS = 60
"""Seconds that a script there may take."""
SSH_FAILED = 255
"""The exit code of ssh if the script did not run."""
MARK = "distvae-doctor"
"""The beginning of the lines of an answer; a machine may print others at every login."""
NO_ANSWER = (
    "Connection refused",
    "timed out",
    "No route to host",
    "Could not resolve",
    "Network is unreachable",
)
NEEDED_PROGRAMS = (
    ("rsync", "rsync", "Ray copies files by it"),
    ("pgrep", "procps", "cluster.yaml finds by it what is to end with Ray's node"),
)
"""Programs, the packages that contain them, and their use."""
MIN_HOME_SPACE = 5 * GIB
"""Free bytes that an installation needs in the home folder."""
FACTS_SCRIPT = f"""
say() {{ printf '{MARK} %s\\n' "$*"; }}
say rsync "$(command -v rsync)"
say pgrep "$(command -v pgrep)"
say python "$(PYTHON --version 2>&1 | head -n 1)"
say venv "$(PYTHON -c 'import ensurepip, venv; print("yes")' 2>/dev/null)"
say free "$(df -Pk "$HOME" | awk 'END {{ print $4 }}')"
if [ -e {LOCK_FILE} ] && command -v flock >/dev/null; then
  flock -n 9 9<>{LOCK_FILE} || say running "$(head -c 200 {LOCK_FILE} | tr '\\n' ' ')"
fi
say time "$(date +%s.%N)"
"""


@dataclass(frozen=True)
class SshHost:
    """A machine, and how a cluster file says it is reached."""

    address: str
    user: str
    key: str | None
    proxy: str | None

    def command(self, check_host_key: bool) -> list[str]:
        """Return the call of ssh that runs a script from standard input."""
        options = ["BatchMode=yes", f"ConnectTimeout={CONNECT_SECONDS}"]
        if check_host_key:
            options += ["StrictHostKeyChecking=yes"]
        else:
            options += ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        if self.key:
            options += ["IdentitiesOnly=yes"]
        if self.proxy:
            options += [f"ProxyCommand={self.proxy}"]
        words = ["ssh"]
        if self.key:
            words += ["-i", self.key]
        for option in options:
            words += ["-o", option]
        return [*words, "--", self.login, "bash -l -s"]

    @property
    def login(self) -> str:
        """The user and the address."""
        return f"{self.user}@{self.address}" if self.user else self.address

    def run(self, script: str, check_host_key: bool = False) -> "Answer":
        """Run a script there and return its answer."""
        asked = time.time()
        try:
            done = subprocess.run(
                self.command(check_host_key),
                input=script,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SCRIPT_SECONDS,
                check=False,
                env=os.environ | {"LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            error = f"timed out after {SCRIPT_SECONDS} s"
            return Answer(SSH_FAILED, "", error, asked, time.time())
        return Answer(done.returncode, done.stdout, done.stderr, asked, time.time())


@dataclass(frozen=True)
class Answer:
    """The exit code and output of a script, and the times when it began and ended."""

    code: int
    out: str
    err: str
    asked: float
    answered: float

    @property
    def reached(self) -> bool:
        """Return whether the script ran at all."""
        return self.code != SSH_FAILED

    def marked_lines(self) -> list[str]:
        """Return the lines with the mark, without it."""
        mark = f"{MARK} "
        return [line.removeprefix(mark) for line in self.out.splitlines() if line.startswith(mark)]

    def facts(self) -> dict[str, str]:
        """Return the facts in the marked lines by name."""
        facts = {}
        for line in self.marked_lines():
            name, _, value = line.partition(" ")
            facts[name] = value.strip()
        return facts


def facts_script(python: str) -> str:
    """Return the script that prints the facts of a machine, for a Python of that name."""
    return FACTS_SCRIPT.replace("PYTHON", python)


def connect(host: SshHost, python: str) -> tuple[list[Diagnosis], Answer | None]:
    """Return the diagnoses of the connection to a machine, and its answer.

    An unknown host key is noted. It does not stop Ray, and so it does not stop this either.
    """
    diagnoses = []
    answer = host.run(facts_script(python), check_host_key=True)
    if not answer.reached:
        key = diagnose_host_key(host, answer.err)
        if key is not None:
            diagnoses.append(key)
            if key.state == "bad":
                return diagnoses, None
            answer = host.run(facts_script(python))
    if not answer.reached:
        return [*diagnoses, diagnose_failed_login(host, answer.err)], None
    found = f"{host.user or 'this user'} may log in"
    return [*diagnoses, Diagnosis("ok", "ssh", host.address, found)], answer


def diagnose_host_key(host: SshHost, error: str) -> Diagnosis | None:
    """Return the diagnosis of the machine's host key, if ssh failed because of it."""
    if "HOST IDENTIFICATION HAS CHANGED" in error:
        found = (
            "the host key is not the one in known_hosts: another machine, or one that was installed"
            " again"
        )
        remedy = (
            f"if you know why: ssh-keygen -R {host.address}, then log in once and compare its"
            " fingerprint"
        )
        return Diagnosis("bad", "ssh", host.address, found, remedy)
    if "Host key verification failed" in error or "host key is known" in error:
        found = "the host key is unknown here; 'ray up' trusts any machine that answers"
        remedy = f"log in once and compare its fingerprint: ssh {host.login}"
        return Diagnosis("note", "ssh", host.address, found, remedy)
    return None


def diagnose_failed_login(host: SshHost, error: str) -> Diagnosis:
    """Return the diagnosis of a failed login."""
    if "Permission denied" in error or "Too many authentication failures" in error:
        return _diagnose_refused_key(host, error)
    lines = [line for line in error.splitlines() if line]
    message = " ".join(line for line in lines if not line.startswith(("Warning:", "@")))
    if any(words in error for words in NO_ANSWER):
        remedy = (
            "is it on, does sshd run there, and is this its address? (provider.head_ip,"
            " provider.worker_ips)"
        )
        return Diagnosis("bad", "ssh", host.address, f"nothing answers: {message}", remedy)
    found = message or "ssh failed without a message"
    return Diagnosis("bad", "ssh", host.address, found, f"try it by hand: ssh -v {host.login}")


def _diagnose_refused_key(host: SshHost, error: str) -> Diagnosis:
    """Return the diagnosis of a key that the machine refuses."""
    if "UNPROTECTED PRIVATE KEY" in error:
        found = f"{host.key} can be read by others, so ssh ignores it"
        return Diagnosis("bad", "ssh", host.address, found, f"chmod 600 {host.key}")
    key = host.key or "no key named in auth.ssh_private_key, and none of ssh's own"
    found = f"the key is refused: {key}, for user {host.user or 'of this name'}"
    identity = f"-i {host.key} " if host.key else ""
    remedy = f"ssh-copy-id {identity}{host.login}, or another auth.ssh_user"
    return Diagnosis("bad", "ssh", host.address, found, remedy)


def check_requirements(host: SshHost, facts: Mapping[str, str], python: str) -> Iterator[Diagnosis]:
    """Check the programs, the Python and the disk of a machine."""
    name, install = host.address, f"ssh {host.login} sudo apt-get install"
    for program, package, use in NEEDED_PROGRAMS:
        if facts.get(program):
            yield Diagnosis("ok", program, name, "there")
        else:
            yield Diagnosis("bad", program, name, f"missing; {use}", f"{install} {package}")
    version = facts.get("python", "")
    if not re.fullmatch(r"Python \d+\.\d+\.\d+\S*", version):
        remedy = f"{install} {python} {python}-venv"
        yield Diagnosis("bad", "Python", name, f"no {python}", remedy)
    elif facts.get("venv") != "yes":
        found = f"{version} cannot make environments: venv or ensurepip is missing"
        yield Diagnosis("bad", "Python", name, found, f"{install} {python}-venv")
    else:
        yield Diagnosis("ok", "Python", name, version)
    if facts.get("free", "").isdigit():
        free = 1024 * int(facts["free"])
        found = f"home: {format_bytes(free)} free"
        if free >= MIN_HOME_SPACE:
            yield Diagnosis("ok", "disk", name, found)
        else:
            remedy = "make room there: torch and Ray take 2 GiB, with CUDA 8 GiB"
            yield Diagnosis("bad", "disk", name, found, remedy)


def check_host_clock(host: SshHost, answer: Answer) -> Iterator[Diagnosis]:
    """Check the clock of a machine.

    The script reads it last, so the end of the round trip alone bounds the uncertainty.
    """
    try:
        remote = float(answer.facts()["time"])
    except (KeyError, ValueError):  # a system whose date knows no fractions
        return
    uncertainty = (answer.answered - answer.asked) / 2
    seconds_ahead = remote - (answer.asked + answer.answered) / 2
    yield from check_clock(host.address, seconds_ahead, uncertainty)


def check_idle(host: SshHost, facts: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Check that no training or sweep runs on the head, because 'ray up' would end it."""
    if "running" in facts:
        found = f"{facts['running'] or 'a training run or sweep'}"
        remedy = "'ray up' restarts Ray and ends it; wait, or stop it first: --resume resumes it"
        yield Diagnosis("bad", "running", host.address, found, remedy)


def write_script(folder: str, file: str) -> str:
    """Return the script that writes an empty file into a folder."""
    return f"mkdir -p {quote_folder(folder)} && : > {quote_folder(folder)}/{file}"


def list_script(folder: str) -> str:
    """Return the script that lists a folder."""
    return f'ls -A {quote_folder(folder)} | sed "s/^/{MARK} /"'


def delete_script(folder: str, file: str) -> str:
    """Return the script that deletes a file."""
    return f"rm -f {quote_folder(folder)}/{file}"


def quote_folder(folder: str) -> str:
    """Quote a folder for a shell, which then replaces nothing but a home folder at its start."""
    for home in ("~", "$HOME", "${HOME}"):
        if folder == home:
            return '"$HOME"'
        if folder.startswith(f"{home}/"):
            return f'"$HOME"{shlex.quote(folder.removeprefix(home))}'
    return shlex.quote(folder)


def names_or_refusal(answer: Answer) -> list[str] | Refusal:
    """Return the names that a script listed, or the reason why it failed."""
    if answer.code:
        last_words = " ".join(answer.err.split()[-20:])
        return Refusal(last_words or f"ended with {answer.code}")
    return answer.marked_lines()
