"""Machines that do not see the same storage are refused before training begins."""

from pathlib import Path

import pytest

from distvae.cluster import joined
from distvae.nodes import check
from distvae.refusal import Refusal
from distvae.storage import Folder
from tests.machines import cluster

HERE = Path("/proc/self/cwd")
"""The folder that a process is in: another for each of two machines that were started in different ones."""


@pytest.mark.slow
def test_a_folder_that_a_machine_does_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not HERE.is_dir():
        pytest.skip("machines in one see different folders by /proc, which this system has not")
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    monkeypatch.chdir(one)
    with cluster() as machines:
        monkeypatch.chdir(other)
        machines.add_node(num_cpus=1)
        with joined(machines.address, 0) as ray:
            check(ray, Folder(tmp_path / "run"))
            with pytest.raises(Refusal, match=r"/run: what \S+ writes there is not seen by \S+; a place that all"):
                check(ray, Folder(HERE / "run"))
    assert list((tmp_path / "run").iterdir()) == []
