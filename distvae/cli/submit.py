"""Run `distvae tune` or `train` on the head of a cluster, on all machines of its Ray.

`ray submit` and `ray job submit` start cluster/sweep.py and cluster/train.py, which call this.
"""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from distvae.files.program import errors_reported
from distvae.files.refusal import Refusal
from distvae.machines.cluster import mark_running

Command = Literal["tune", "train"]

CHECKOUT = Path("~/distvae-checkout")
"""The folder into which `ray up` puts the checkout."""
STORAGE = "DISTVAE_STORAGE"
"""The environment variable with the storage that all machines share."""
CLUSTER = Path("~/ray_bootstrap_config.yaml")
"""Ray's copy of the cluster file on the head."""
POLL = 5.0
"""Seconds between two counts of the machines that have joined."""
WAIT = 600.0
"""Seconds to wait for machines that are still starting."""
SPACE_FILES = (".yaml", ".yml")
"""The ends of the names of files with search spaces."""
SPACE_HINT = (
    "If an argument contains a space: 'ray submit' splits it. Quote it twice, \"$(printf %q 'a"
    " b')\", or use 'ray job submit', which does not split arguments."
)


def run_on_cluster(command: Command, words: Sequence[str]) -> None:
    """Run a command on all machines of the cluster, and exit with its code.

    The same words resume what an earlier submission has started.
    """
    from distvae.cli import app

    try:
        with errors_reported():
            folder = _enter_checkout()
            sys.argv = ["distvae", *complete_words(command, list(words))]
            _refuse_missing_files(words, folder)
            with mark_running(" ".join(sys.argv)):
                if command == "tune" and not _has_option(words, "--concurrent", "--help"):
                    _wait_for_machines()
                app()
    except SystemExit as end:
        # Ray Jobs, which does not split arguments, sets this variable
        if end.code == 2 and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
            print(SPACE_HINT, file=sys.stderr)
        raise


def _enter_checkout() -> Path:
    """Change into the folder with the search spaces: the folder of the job, or the checkout."""
    if not Path("tune_spaces").is_dir():
        if not CHECKOUT.expanduser().is_dir():
            raise Refusal(
                f"{CHECKOUT}: no such folder; run this on the head of a cluster that 'ray up' made,"
                " or in a checkout"
            )
        os.chdir(CHECKOUT.expanduser())
    return Path.cwd()


def complete_words(command: Command, words: list[str]) -> list[str]:
    """Return a command line with the options of a cluster, where the user gives none. Results are
    kept on the shared storage.
    """
    completed = [command, *words]
    if "--help" in words:
        return completed
    if not _has_option(words, "--address"):
        completed += ["--address", "auto"]
    if not _has_option(words, "--wait"):
        completed += ["--wait", f"{WAIT:.0f}"]
    if not _has_option(words, "--resume", "--force"):
        completed += ["--resume"]
    option = "--out" if command == "tune" else "--storage"
    if _has_option(words, option, "--out", "-o"):
        return completed
    storage = os.environ.get(STORAGE)
    if not storage:
        raise Refusal(
            f"{STORAGE}: not set on the head; {option} expected, with a place that all machines"
            " can read and write"
        )
    runs = f"{storage.rstrip('/')}/runs"
    if "://" in storage and command == "train":
        return [*completed, "--storage", runs]
    return [*completed, "--out", f"{runs}/{_name_of(command, words)}"]


def _name_of(command: Command, words: Sequence[str]) -> str:
    """Return the name of the first space or recipe among words that may be values of options."""
    from distvae.cli.options import complete_recipe, complete_space
    from distvae.tune.space import sweep_name

    known = complete_space() if command == "tune" else complete_recipe()
    found = (Path(word).stem for word in words if word in known or word.endswith(SPACE_FILES))
    return sweep_name(next(found, "sweep")) if command == "tune" else next(found, "training")


def _has_option(words: Sequence[str], *options: str) -> bool:
    """Return whether one of the options is given, also as `--out=PATH` or `-oPATH`."""
    prefixes = tuple(f"{option}=" if option.startswith("--") else option for option in options)
    return any(word in options or word.startswith(prefixes) for word in words)


def _refuse_missing_files(words: Sequence[str], folder: Path) -> None:
    """Refuse a file that is not on the head, although it may be where the user typed."""
    for word in words:
        if word.endswith(SPACE_FILES) and not Path(word).is_file():
            # Quoted, because `~` is the home folder on the head.
            copy = f"ray rsync-up cluster/cluster.yaml {shlex.join([word, str(CHECKOUT / word)])}"
            raise Refusal(
                f"{word}: not on the head, in {folder}; copy everything with 'ray job submit"
                f" --working-dir .', or this file with: {copy}"
            )


def _wait_for_machines() -> None:
    """Wait until all machines of the cluster file have joined, as a sweep uses only the machines
    that it finds.
    """
    import yaml

    from distvae.machines.cluster import live_machines
    from distvae.machines.session import ray_session
    from distvae.system import available_cores

    file, count = CLUSTER.expanduser(), 1
    if file.is_file():
        count += int(yaml.safe_load(file.read_text()).get("min_workers") or 0)
    deadline = time.monotonic() + WAIT
    with ray_session("auto", available_cores()) as ray:
        while (joined := len(live_machines(ray))) < count and time.monotonic() < deadline:
            print(f"{joined} of {count} machines have joined; waiting for the others", flush=True)
            time.sleep(POLL)
