"""Machines run the same programs and see the same storage, or are refused; more are requested."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines import cluster
from distvae.machines.cluster import (
    delete_marker,
    requested_resources,
    round_trip,
    write_marker,
)
from distvae.machines.doctor import check_folder


@given(st.integers(1, 5), st.data())
def test_a_round_trip_tells_all_pairs_and_leaves_nothing(count: int, data: st.DataObject) -> None:
    """The oracle: machines see each other if and only if they have the same folder."""
    nodes = [f"node {number}" for number in range(count)]
    lasting = data.draw(st.booleans())
    """Whether no file can be deleted."""
    folder_of = {node: data.draw(st.integers(0, 2)) for node in nodes}
    barred = {node for node in nodes if data.draw(st.booleans()) and data.draw(st.booleans())}
    folders: dict[int, set[str]] = {number: set() for number in range(3)}

    def run(
        asked: Iterable[str], function: Callable[..., Any], place: str, *names: str
    ) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for node in asked:
            files, answers[node] = folders[folder_of[node]], None
            if function is write_marker and node in barred:
                answers[node] = Refusal("no room")
            elif function is write_marker:
                files.add(*names)
            elif function is delete_marker and lasting:
                answers[node] = Refusal("denied")
            elif function is delete_marker:
                files.discard(*names)
            else:
                answers[node] = sorted(files)
        return answers

    trip = round_trip(nodes, Folder("/shared"), run)
    able = [node for node in nodes if node not in barred]
    if lasting:
        assert set(trip.failed) == {*nodes}
        return
    assert set(trip.failed) == barred
    assert set(trip.unseen) == {
        (me, other) for me in able for other in able if folder_of[me] != folder_of[other]
    }
    assert not any(folders.values())
    findings = list(check_folder(trip, {node: node for node in nodes}, Folder("/shared")))
    assert [finding.where for finding in findings] == nodes
    bad = {finding.where for finding in findings if finding.state == "bad"}
    assert bad == barred | {reader for reader, _ in trip.unseen}


def test_machines_are_called_for_as_long_as_one_waits_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list plays Ray's part: an autoscaler that is restarting at every second call."""
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

    monkeypatch.setattr(cluster, "REQUEST_INTERVAL", 0.001)
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", request_resources)
    with requested_resources({"CPU": 2, "GPU": 0}, 2):
        assert often.wait(60)
    assert heard.pop() == []
    assert all(bundles == [{"CPU": 2}] * 2 for bundles in heard)
    assert threading.active_count() == threads, "nobody goes on calling"
