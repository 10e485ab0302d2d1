"""Machines before Ray runs on them: reached by ssh, and what is to be said of each."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from distvae.files.refusal import Refusal
from distvae.machines.doctor.diagnosis import Line, size
from distvae.machines.doctor.verdicts import GIB, clocks
from distvae.machines.running_lock import LOCK_FILE

CONNECT = 5  # seconds in which a machine has to answer
PATIENCE = 60  # seconds that a command there may take
MARK = "distvae-doctor"
"""What an answer begins with, beside what a machine prints at every login."""
SILENT = (
    "Connection refused",
    "timed out",
    "No route to host",
    "Could not resolve",
    "Network is unreachable",
)
NEEDED = (
    ("rsync", "rsync", "Ray copies files by it"),
    ("pgrep", "procps", "cluster.yaml finds by it what is to end with Ray's node"),
)
"""Programs, the packages that bring them, and what for."""
LOOK = f"""
say() {{ printf '{MARK} %s\\n' "$*"; }}
say rsync "$(command -v rsync)"
say pgrep "$(command -v pgrep)"
say python "$(PYTHON --version 2>&1 | head -n 1)"
say venv "$(PYTHON -c 'import ensurepip, venv; print("yes")' 2>/dev/null)"
say free "$(df -Pk "$HOME" | awk 'END {{ print $4 }}')"
if [ -e {LOCK_FILE} ] && command -v flock >/dev/null; then
  flock -n 9 9<{LOCK_FILE} || say running "$(head -c 200 {LOCK_FILE} | tr '\\n' ' ')"
fi
say time "$(date +%s.%N)"
"""


@dataclass(frozen=True)
class Host:
    """A machine, and how a cluster file says it is reached."""

    address: str
    user: str
    key: str | None
    proxy: str | None

    def command(self, known: bool) -> list[str]:
        """The call of ssh that runs a script from standard input; unless `known`, whoever answers
        is believed.
        """
        checking = (
            ["StrictHostKeyChecking=yes"]
            if known
            else ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        )
        options = ["BatchMode=yes", f"ConnectTimeout={CONNECT}", *checking]
        options += ["IdentitiesOnly=yes"] if self.key else []
        options += [f"ProxyCommand={self.proxy}"] if self.proxy else []
        identity = ["-i", self.key] if self.key else []
        return [
            "ssh",
            *identity,
            *(part for option in options for part in ("-o", option)),
            "--",
            self.at,
            "bash -l -s",
        ]

    @property
    def at(self) -> str:
        """User and address."""
        return f"{self.user}@{self.address}" if self.user else self.address

    def run(self, script: str, known: bool = False) -> "Answer":
        """What a script says there."""
        asked = time.time()
        try:
            done = subprocess.run(
                self.command(known),
                input=script,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
                env=os.environ | {"LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            return Answer(255, "", f"timed out after {PATIENCE} s", asked, time.time())
        return Answer(done.returncode, done.stdout, done.stderr, asked, time.time())


@dataclass(frozen=True)
class Answer:
    """How a script ended, what it said, and between which times."""

    code: int
    out: str
    err: str
    asked: float
    answered: float

    @property
    def reached(self) -> bool:
        """Whether the script ran at all; ssh itself ends with 255."""
        return self.code != 255

    def facts(self) -> dict[str, str]:
        """What was said with the mark before it."""
        lines = [
            line.split(" ", 2) for line in self.out.splitlines() if line.startswith(f"{MARK} ")
        ]
        return {
            parts[1]: parts[2].strip() if len(parts) > 2 else ""
            for parts in lines
            if len(parts) > 1
        }


def script(python: str) -> str:
    """What is asked of a machine that is to have a Python of that name."""
    return LOOK.replace("PYTHON", python)


def reached(host: Host, python: str) -> tuple[list[Line], Answer | None]:
    """Lines about the way to a machine, and what it said; a host key that is unknown does not stop
    Ray, nor this.
    """
    answer, lines = host.run(script(python), known=True), []
    if not answer.reached and (stranger := unknown(host, answer.err)):
        lines.append(stranger)
        if stranger.state == "bad":
            return lines, None
        answer = host.run(script(python))
    if not answer.reached:
        return [*lines, unreached(host, answer.err)], None
    return [
        *lines,
        Line("ok", "ssh", host.address, f"{host.user or 'this user'} may log in"),
    ], answer


def unknown(host: Host, error: str) -> Line | None:
    """What there is to say of the key that a machine shows: nothing, if that is not what went
    wrong.
    """
    if "HOST IDENTIFICATION HAS CHANGED" in error:
        found = (
            "the host key is not the one in known_hosts: another machine, or one that was installed"
            " again"
        )
        remedy = (
            f"if you know why: ssh-keygen -R {host.address}, then log in once and compare its"
            " fingerprint"
        )
        return Line("bad", "ssh", host.address, found, remedy)
    if "Host key verification failed" in error or "host key is known" in error:
        found = "the host key is unknown here; 'ray up' believes whoever answers"
        return Line(
            "note",
            "ssh",
            host.address,
            found,
            f"log in once and compare its fingerprint: ssh {host.at}",
        )
    return None


def unreached(host: Host, error: str) -> Line:
    """Why nobody can log in."""
    said = " ".join(
        line for line in error.splitlines() if line and not line.startswith(("Warning:", "@"))
    )
    if "Permission denied" in error or "Too many authentication failures" in error:
        key = host.key or "no key named in auth.ssh_private_key, and none of ssh's own"
        found = f"the key is refused: {key}, for user {host.user or 'of this name'}"
        remedy = (
            f"ssh-copy-id {f'-i {host.key} ' if host.key else ''}{host.at}, or another"
            " auth.ssh_user"
        )
        if "UNPROTECTED PRIVATE KEY" in error:
            return Line(
                "bad",
                "ssh",
                host.address,
                f"{host.key} can be read by others, so ssh leaves it",
                f"chmod 600 {host.key}",
            )
        return Line("bad", "ssh", host.address, found, remedy)
    if any(words in error for words in SILENT):
        remedy = (
            "is it on, does sshd run there, and is this its address? (provider.head_ip,"
            " provider.worker_ips)"
        )
        return Line("bad", "ssh", host.address, f"nothing answers: {said}", remedy)
    return Line(
        "bad",
        "ssh",
        host.address,
        said or "ssh failed without a word",
        f"try it by hand: ssh -v {host.at}",
    )


def fit(host: Host, told: Mapping[str, str], python: str) -> Iterator[Line]:
    """What a machine that was reached has, and lacks."""
    name = host.address
    for program, package, use in NEEDED:
        if told.get(program):
            yield Line("ok", program, name, "there")
        else:
            remedy = f"ssh {host.at} sudo apt-get install {package}"
            yield Line("bad", program, name, f"missing; {use}", remedy)
    found = told.get("python", "")
    if not re.fullmatch(r"Python \d+\.\d+\.\d+\S*", found):
        yield Line(
            "bad",
            "Python",
            name,
            f"no {python}",
            f"ssh {host.at} sudo apt-get install {python} {python}-venv",
        )
    elif told.get("venv") != "yes":
        remedy = f"ssh {host.at} sudo apt-get install {python}-venv"
        yield Line(
            "bad",
            "Python",
            name,
            f"{found} cannot make environments: venv or ensurepip is missing",
            remedy,
        )
    else:
        yield Line("ok", "Python", name, found)
    if told.get("free", "").isdigit():
        free = 1024 * int(told["free"])
        enough = free >= 5 * GIB
        remedy = "" if enough else "make room there: torch and Ray take 2 GiB, with CUDA 8 GiB"
        yield Line("ok" if enough else "bad", "disk", name, f"home: {size(free)} free", remedy)


def time_of(host: Host, answer: Answer) -> Iterator[Line]:
    """Its clock; that command came last, so only the end of the round trip bounds how sure that
    is.
    """
    try:
        told = float(answer.facts()["time"])
    except (KeyError, ValueError):  # a system whose date knows no fractions
        return
    unsure = (answer.answered - answer.asked) / 2
    yield from clocks(host.address, told - (answer.asked + answer.answered) / 2, unsure)


def busy(host: Host, told: Mapping[str, str]) -> Iterator[Line]:
    """Whether a training or sweep goes on at the head, which 'ray up' would end."""
    if "running" in told:
        found = f"goes on: {told['running'] or 'a training or sweep'}"
        remedy = (
            "'ray up' restarts Ray and ends it; wait, or stop it first: it goes on with --resume"
        )
        yield Line("bad", "running", host.address, found, remedy)


def writing(folder: str, file: str) -> str:
    """The script that leaves a file in a folder."""
    return f"mkdir -p {quoted(folder)} && : > {quoted(folder)}/{file}"


def looking(folder: str) -> str:
    """The script that lists a folder."""
    return f'ls -A {quoted(folder)} | sed "s/^/{MARK} /"'


def deleting(folder: str, file: str) -> str:
    """The script that takes the file away again."""
    return f"rm -f {quoted(folder)}/{file}"


def quoted(folder: str) -> str:
    """A folder for a shell, in which only a home folder at its beginning is replaced."""
    for home in ("~", "$HOME", "${HOME}"):
        if folder == home or folder.startswith(f"{home}/"):
            return f'"$HOME"{shlex.quote(folder.removeprefix(home)) if folder != home else ""}'
    return shlex.quote(folder)


def said(answer: Answer) -> list[str] | Refusal:
    """The names that a script listed, or why it failed."""
    if answer.code:
        return Refusal(" ".join(answer.err.split()[-20:]) or f"ended with {answer.code}")
    return [
        line.removeprefix(f"{MARK} ")
        for line in answer.out.splitlines()
        if line.startswith(f"{MARK} ")
    ]
