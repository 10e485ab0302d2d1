"""A round trip through a folder tells which machines share it, and leaves nothing there."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.machines.cluster.shared_folder import RoundTrip, round_trip
from distvae.machines.doctor import check_folder


@given(st.integers(1, 5), st.data())
def test_a_round_trip_tells_all_pairs_and_leaves_nothing(count: int, data: st.DataObject) -> None:
    """The oracle: machines see each other if and only if they have the same folder."""
    nodes = [f"node {number}" for number in range(count)]
    folder_of = {node: data.draw(st.integers(0, 2)) for node in nodes}
    barred = {node for node in nodes if data.draw(st.booleans()) and data.draw(st.booleans())}
    folders: dict[int, set[str]] = {number: set() for number in range(3)}

    def write(files: Mapping[str, str]) -> dict[str, Any]:
        for node in files.keys() - barred:
            folders[folder_of[node]].add(files[node])
        return {node: Refusal("no room") if node in barred else None for node in files}

    def delete(files: Mapping[str, str]) -> dict[str, Any]:
        for node, file in files.items():
            folders[folder_of[node]].discard(file)
        return dict.fromkeys(files)

    def look(files: Mapping[str, str]) -> dict[str, Any]:
        return {node: sorted(folders[folder_of[node]]) for node in files}

    trip = round_trip(nodes, write, look, delete)
    able = [node for node in nodes if node not in barred]
    assert set(trip.failed) == barred
    assert set(trip.unseen) == {
        (me, other) for me in able for other in able if folder_of[me] != folder_of[other]
    }
    assert not any(folders.values())
    findings = list(check_folder(trip, {node: node for node in nodes}, Folder("/shared")))
    assert [finding.where for finding in findings] == nodes
    bad = {finding.where for finding in findings if finding.state == "bad"}
    assert bad == barred | {reader for reader, _ in trip.unseen}


def test_a_file_that_cannot_be_deleted_is_a_fault() -> None:
    def nothing(files: Mapping[str, str]) -> dict[str, Any]:
        return dict.fromkeys(files)

    trip = round_trip(
        ["a"],
        nothing,
        lambda files: {"a": list(files.values())},
        lambda _: {"a": Refusal("denied")},
    )
    assert trip == RoundTrip({"a": "denied"}, [])
