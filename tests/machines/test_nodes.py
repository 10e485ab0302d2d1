"""Machines that do not see the same storage are refused before training begins."""

import threading
from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.cluster import autoscaler
from distvae.machines.cluster.autoscaler import requested_resources
from distvae.machines.cluster.cluster_check import check_cluster
from distvae.machines.session import ray_session
from tests.ray_cluster import HERE, cluster_in_two_folders


@pytest.mark.slow
def test_a_folder_that_a_machine_does_not_see_is_refused(tmp_path: Path) -> None:
    with (
        cluster_in_two_folders(tmp_path) as machines,
        ray_session(machines.address, 0) as ray,
    ):
        check_cluster(ray, Folder(tmp_path / "run"))
        with pytest.raises(
            Refusal, match=r"/run: what \S+ writes there is not seen by \S+; a place that all"
        ):
            check_cluster(ray, Folder(HERE / "run"))
    assert list((tmp_path / "run").iterdir()) == []


def test_machines_are_called_for_as_long_as_one_waits_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray's part is played by a list: an autoscaler of which every other call finds it
    restarting.
    """
    heard, often, threads = (
        list[list[dict[str, float]]](),
        threading.Event(),
        threading.active_count(),
    )

    def request_resources(bundles: list[dict[str, float]]) -> None:
        heard.append(bundles)
        if len(heard) >= 4:
            often.set()
        if len(heard) == 2:
            raise ConnectionError

    monkeypatch.setattr(autoscaler, "REQUEST_INTERVAL", 0.001)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", request_resources)
    with requested_resources({"CPU": 2, "GPU": 0}, 2):
        assert often.wait(60)
    assert heard.pop() == []
    assert all(bundles == [{"CPU": 2}] * 2 for bundles in heard)
    assert threading.active_count() == threads, "nobody goes on calling"
