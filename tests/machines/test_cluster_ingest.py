"""The machines of a cluster ingest what processes of one machine do, byte for byte."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distvae.data.tables.ingest import Division, Execution, ingest
from distvae.data.tables.workers import LocalProcesses
from distvae.files.refusal import Refusal
from distvae.machines.cluster.nodes import Machine
from distvae.machines.cluster_ingest import ClusterMachines, IngestOutlook
from distvae.machines.session import ray_session
from tests.called import Called
from tests.processes import started
from tests.ray_cluster import HERE, cluster, cluster_in_two_folders

DIVISION = Division(rows_per_file=9000)
SLAB = 20_000


def stored(folder: Path, rows: int = 400_000) -> Path:
    x = np.random.default_rng(rows).exponential(size=(rows, 16)).astype(np.float32)
    np.save(folder / "a.npy", x)
    return folder / "a.npy"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def ingested_here(source: Path) -> dict[str, bytes]:
    out = source.with_name("here")
    ingest([source], out, DIVISION, execution=Execution(LocalProcesses(1), rows_per_slab=SLAB))
    return content(out)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, "nothing in two minutes"
        time.sleep(0.002)


@pytest.mark.long
@pytest.mark.parametrize("until", ["slab-*", "*.json"])
def test_a_lost_machine_changes_no_byte(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], until: str
) -> None:
    source, out = stored(tmp_path), tmp_path / "out"
    done = list[int]()

    def lose_a_machine() -> None:
        wait_for(lambda: any(tmp_path.glob(f".out.partial/*.scratch/{until}")))
        machines.worker_nodes.copy().pop().kill_raylet()
        done.append(len(list(tmp_path.glob(".out.partial/*.scratch/*.json"))))

    with cluster(1, 1) as machines, ray_session(machines.address, 0) as ray:
        losing = threading.Thread(target=lose_a_machine)
        losing.start()
        ingest([source], out, DIVISION, execution=Execution(ClusterMachines(ray), False, SLAB))
        losing.join()
    assert done[0] < 44, "some files were still to be written"
    assert content(out) == ingested_here(source)
    assert not list(tmp_path.glob(".*"))


DRIVER = """
import sys
from pathlib import Path
from distvae.data.tables.ingest import Division, Execution, ingest
from distvae.machines.cluster_ingest import ClusterMachines
from distvae.machines.session import ray_session
if __name__ == "__main__":
    source, address = Path(sys.argv[1]), sys.argv[2]
    with ray_session(address, 0) as ray:
        execution = Execution(ClusterMachines(ray), "resume" in sys.argv, 20_000)
        ingest([source], source.with_name("out"), Division(rows_per_file=9000), execution=execution)
"""


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_after_the_end_of_the_driver_the_ingest_goes_on_or_nothing_is_left(
    tmp_path: Path, how: signal.Signals
) -> None:
    source, script = stored(tmp_path, 1_600_000), tmp_path / "script.py"
    script.write_text(DRIVER)
    with cluster(1, 1) as machines:
        command = [sys.executable, str(script), str(source), machines.address]
        with started(command, stderr=subprocess.DEVNULL) as driver:
            wait_for(lambda: any(tmp_path.glob(".out.partial/*.scratch/slab-*")))
            driver.send_signal(how)
            driver.wait(100)
        left = list(tmp_path.glob(".out.partial/*.scratch/slab-*"))
        assert not (tmp_path / "out").exists()
        assert bool(left) == (how == signal.SIGKILL)
        subprocess.run([*command, "resume"], check=True)
    assert content(tmp_path / "out") == ingested_here(source)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.long
def test_sources_and_places_that_a_machine_does_not_see_are_refused(tmp_path: Path) -> None:
    with (
        cluster_in_two_folders(tmp_path) as machines,
        ray_session(machines.address, 0) as ray,
    ):
        stored(tmp_path / "other", 100)
        execution = Execution(ClusterMachines(ray))
        with pytest.raises(Refusal, match=r"a\.npy: missing on \S+; sources on storage that"):
            ingest([HERE / "a.npy"], tmp_path / "out", execution=execution)
        stored(tmp_path / "one", 101)
        with pytest.raises(Refusal, match=r"a\.npy: another on \S+; sources on storage that"):
            ingest([HERE / "a.npy"], tmp_path / "out", execution=execution)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.long
def test_a_cluster_without_room_is_refused(tmp_path: Path) -> None:
    with cluster() as machines, ray_session(machines.address, 0) as ray:
        execution = Execution(ClusterMachines(ray, wait=0.1))
        with pytest.raises(Refusal, match=r"--address: no machine of that Ray has a processor and"):
            ingest([stored(tmp_path, 100)], tmp_path / "out", execution=execution)
    assert not list(tmp_path.glob("*out*"))


def test_options_that_do_not_fit_are_refused_in_a_sentence(tmp_path: Path, call: Called) -> None:
    words = ["ingest", str(stored(tmp_path, 100)), str(tmp_path / "out")]
    for options, said in {
        ("--address", "127.0.0.1:1"): "--address: 127.0.0.1:1: nothing answers there",
        ("--address", "auto", "--processes", "2"): "--processes: of this machine",
        ("--wait", "3"): "--wait: for machines of a Ray; --address expected",
    }.items():
        code, _, err = call(*words, *options)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1
    assert not list(tmp_path.glob("*out*"))


def test_the_loss_of_a_machine_is_told_with_who_goes_on() -> None:
    outlook, lost = IngestOutlook(), Machine("10.0.0.2", 1, cpus=4)
    for left, said in {
        4.0: "other machines do what it has not done",
        0.0: "no other has a processor, so a machine is waited for that has",
    }.items():
        others = {"b": Machine("10.0.0.3", 1, cpus=left)}
        assert outlook.after_loss("a", lost, others).endswith(f"; {said}")
        assert outlook.while_silent("a", lost, others).endswith(said)
