"""What `ray submit` and `ray job submit` start on a cluster's head: a command of ours, on all
machines of its Ray.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from distvae.files.refusal import Refusal
from distvae.machines.running_lock import mark_running

Command = Literal["tune", "train"]

CHECKOUT = Path("~/distvae-checkout")
"""Where `ray up` puts the checkout."""
STORAGE = "DISTVAE_STORAGE"
"""The variable that names the storage which all machines share."""
CLUSTER = Path("~/ray_bootstrap_config.yaml")
"""The cluster's file, as Ray keeps it there."""
POLL = 5.0
WAIT = 600.0
"""Seconds in which machines come that are still to be started."""
SPLIT = (
    "If an argument holds a space: 'ray submit' takes it apart. Quote it twice, \"$(printf %q 'a"
    " b')\", or use 'ray job submit', which does not."
)


def submitted(command: Command, words: Sequence[str]) -> None:
    """Run it; once more with the same words it goes on with what it finds. The exit code is the
    command's.
    """
    from distvae.cli import app, errors_reported

    try:
        with errors_reported():
            there = _enter_checkout()
            sys.argv = ["distvae", *_complete(command, list(words))]
            _refuse_absent(words, there)
            with mark_running(" ".join(sys.argv)):
                if command == "tune" and not _given(words, "--concurrent", "--help"):
                    _gather(_expected())
                app()
    except SystemExit as end:
        if end.code == 2 and not _is_job():
            print(SPLIT, file=sys.stderr)
        raise


def _expected() -> int:
    """So many machines the cluster has at least, by the file that `ray up` left on the head."""
    import yaml

    file = CLUSTER.expanduser()
    return (
        1 + int(yaml.safe_load(file.read_text()).get("min_workers") or 0) if file.is_file() else 1
    )


def _gather(count: int) -> None:
    """Wait for the machines of a cluster that has just been made: a sweep is spread over those that
    it finds.
    """
    from distvae.machines.nodes import node_addresses
    from distvae.machines.ray_session import available_cores, ray_session

    deadline = time.monotonic() + WAIT
    with ray_session("auto", available_cores()) as ray:
        while (found := len(node_addresses(ray))) < count and time.monotonic() < deadline:
            print(f"{found} of {count} machines are here; waiting for the others", flush=True)
            time.sleep(POLL)


def _is_job() -> bool:
    """Whether Ray Jobs started this, which passes arguments on as they are."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _enter_checkout() -> Path:
    """The folder that names of spaces and recipes are looked up in: that of the job, or what `ray
    up` brought.
    """
    if not Path("tune_spaces").is_dir():
        if not CHECKOUT.expanduser().is_dir():
            raise Refusal(
                f"{CHECKOUT}: not there; on the head of a cluster that 'ray up' made, or in a"
                " checkout, expected"
            )
        os.chdir(CHECKOUT.expanduser())
    return Path.cwd()


def _complete(command: Command, words: list[str]) -> list[str]:
    """The words of the command line with those that a cluster adds: where it runs, and where it
    keeps what it does.
    """
    if "--help" in words:
        return [command, *words]
    added = [] if _given(words, "--address") else ["--address", "auto"]
    added += [] if _given(words, "--wait") else ["--wait", f"{WAIT:.0f}"]
    added += [] if _given(words, "--resume", "--force") else ["--resume"]
    return [command, *words, *added, *_kept(command, words)]


def _kept(command: Command, words: Sequence[str]) -> list[str]:
    """The options that say where results are kept: on the storage that all machines share."""
    option = "--out" if command == "tune" else "--storage"
    if _given(words, option) or (command == "tune" and _given(words, "-o")):
        return []
    if not (storage := os.environ.get(STORAGE)):
        raise Refusal(
            f"{STORAGE}: not set on the head; {option} expected, where all machines read and write"
        )
    if command == "train":
        return [option, f"{storage.rstrip('/')}/runs"]
    if "://" in storage:
        raise Refusal(
            f"{STORAGE}: {storage}; a sweep needs a folder on a disk that all machines see: --out"
            " expected"
        )
    name = next((Path(word).stem for word in words if not word.startswith("-")), "sweep")
    return [option, f"{storage.rstrip('/')}/runs/{name}"]


def _given(words: Sequence[str], *options: str) -> bool:
    """Whether an option is among the words; a value may hang on to it: `--out=PATH`, `-oPATH`."""
    joints = [option + "=" * option.startswith("--") for option in options]
    return any(word in options or word.startswith(tuple(joints)) for word in words)


def _refuse_absent(words: Sequence[str], there: Path) -> None:
    """A file that exists where the command was typed, and not here."""
    for word in words:
        if word.endswith((".yaml", ".yml")) and not Path(word).is_file():
            bring = f"'ray rsync-up cluster/cluster.yaml {word} {CHECKOUT}/{word}' brings it"
            raise Refusal(
                f"{word}: not on the head, in {there}; {bring}, and 'ray job submit --working-dir"
                " .' brings everything"
            )
