"""`cluster/slurm.sh` under a Slurm of this machine, whose two nodes have one worker each."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from distvae.train.run_folder import read_epochs
from tests.cluster.hosts import wait_for
from tests.cluster.pins import ROOT
from tests.ports import free_port
from tests.train.commands import TORCHRUN, run, same

SCRIPT = ROOT / "cluster" / "slurm.sh"
PATHS = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch")
NODES = (socket.gethostname(), f"{socket.gethostname()}-2")  # workers meet at the first one
TRAINING = ["bars", "data.rows=2000", "train.epochs=40"]
PATIENCE = 120.0
ATTEMPTS = 3
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ReturnToService=2
MpiDefault=none
{nodes}
PartitionName=main Nodes=ALL Default=YES State=UP
"""


class Slurm:
    """A Slurm that runs jobs on this machine, from `with` to the end of its block."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # a short path, as sockets need
        self.user = subprocess.check_output(["id", "-un"], text=True).strip()
        self.environment = os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": PATHS,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        self.programs: list[Popen[bytes]] = []

    def __enter__(self) -> "Slurm":
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self.programs):
            program.terminate()
        for program in self.programs:
            program.wait(PATIENCE)
        shutil.rmtree(self.folder)

    def start(self) -> bool:
        """Start the programs; return True once both nodes are idle, False if a program ended, as
        it does if its port is taken.
        """
        self._configure()
        self.call("mungekey", "--create", f"--keyfile={self.folder / 'munge.key'}")
        files = {name: f"munged.{name}" for name in ("log-file", "pid-file", "seed-file")}
        files |= {"socket": "munge", "key-file": "munge.key"}
        options = [f"--{name}={self.folder / file}" for name, file in files.items()]
        self._start("munged", "--foreground", "--force", *options)
        wait_for((self.folder / "munge").exists, PATIENCE, "munge has not started")
        self._start("slurmctld", "-D")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        wait_for(lambda: self._ended() or self._idle(), PATIENCE, "the nodes have not started")
        return not self._ended()

    def _configure(self) -> None:
        host = socket.gethostname()
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1"
            f" Port={free_port()} CPUs={os.cpu_count()}"
            for node in NODES
        ]
        text = CONFIGURATION.format(
            host=host,
            controller=free_port(),
            user=self.user,
            folder=self.folder,
            nodes="\n".join(nodes),
        )
        (self.folder / "slurm.conf").write_text(text)

    def _start(self, *words: str) -> None:
        started = Popen(words, env=self.environment, stdout=DEVNULL, stderr=DEVNULL)
        self.programs.append(started)

    def _ended(self) -> bool:
        return any(program.poll() is not None for program in self.programs)

    def _idle(self) -> bool:
        return self.attempt("sinfo", "--noheader", "--format=%D", "--states=idle") == "2"

    def call(self, *words: str) -> str:
        """Return what one of Slurm's commands prints."""
        return subprocess.check_output(words, env=self.environment, text=True)

    def attempt(self, *words: str) -> str | None:
        """Return what a command prints, or None if it fails."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False
        )
        return None if done.returncode else done.stdout.strip()

    def submit(self, *words: str) -> str:
        """Submit a training on both nodes; return the number of the job."""
        output = self.folder / "job.txt"
        options = ["--parsable", "--nodes", "2", "--ntasks-per-node", "1", "-o", str(output)]
        return self.call("sbatch", *options, str(SCRIPT), *words).strip()

    def begin(self, out: Path) -> str:
        """Submit a training into a folder, and wait for an epoch; return the job's number."""
        job = self.submit(*TRAINING, "--no-track", "--no-evaluate", "--out", str(out))
        wait_for(lambda: out.is_dir() and read_epochs(out), PATIENCE, "no epoch was finished")
        return job

    def state(self, job: str) -> str:
        """Return the state of a job."""
        found = re.search(r"JobState=(\w+)", self.call("scontrol", "show", "job", job))
        assert found
        return found[1]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    for name in PROGRAMS:
        if not shutil.which(name, path=PATHS):
            pytest.skip(f"{name} is not installed: apt install slurm-wlm munge")
    for _ in range(ATTEMPTS):
        with Slurm() as here:
            if here.start():
                yield here
                here.call("scancel", "--user", here.user)
                wait_for(
                    lambda: here.attempt("squeue", "--noheader") == "", PATIENCE, "a job goes on"
                )
                return
    pytest.fail(f"a program of Slurm ended in each of {ATTEMPTS} starts")


@pytest.mark.slow
def test_a_job_whose_time_is_over_is_queued_again_and_ends_as_an_uninterrupted_training(
    slurm: Slurm, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = slurm.begin(out)
    slurm.call("scancel", "--signal=USR1", "--batch", job)
    wait_for(lambda: slurm.state(job) == "PENDING", PATIENCE, "the job was not queued again")
    done = len(read_epochs(out))
    assert 0 < done < 40, "the job ended before it was stopped"

    time.sleep(3)  # Slurm waits two minutes; it fails to start a job in the second of the last stop
    slurm.call("scontrol", "update", f"jobid={job}", "starttime=now")
    wait_for(
        lambda: slurm.state(job) == "COMPLETED", PATIENCE, "the job did not continue to its end"
    )
    said = (slurm.folder / "job.txt").read_text()
    assert f"distvae: stopped; the state is in {out}" in said
    same(read_epochs(out), run(TORCHRUN, TRAINING, tmp_path / "whole"), 0.0)


@pytest.mark.long
def test_a_job_that_is_cancelled_or_refused_is_not_queued_again(
    slurm: Slurm, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = slurm.begin(out)
    slurm.call("scancel", job)
    wait_for(lambda: slurm.state(job) == "CANCELLED", PATIENCE, "the job was not cancelled")
    assert f"distvae: stopped; the state is in {out}" in (slurm.folder / "job.txt").read_text()
    job = slurm.submit("no-such-recipe")
    wait_for(lambda: slurm.state(job) == "FAILED", PATIENCE, "the job has not failed")
    assert "Restarts=0" in slurm.call("scontrol", "show", "job", job)
    assert "no-such-recipe" in (slurm.folder / "job.txt").read_text()


def test_the_script_says_how_to_submit_it() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"}
    done = subprocess.run(
        ["bash", str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout.startswith("Train on the machines of a Slurm job")
    assert "sbatch --nodes 2" in done.stdout
