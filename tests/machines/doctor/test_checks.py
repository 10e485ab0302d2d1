"""From facts to lines: equal machines are fine, and what differs or is open is said of the machine
it is true of.
"""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.files.refusal import Refusal
from distvae.machines.cluster.shared_folder import RoundTrip, round_trip
from distvae.machines.doctor import hardware_checks, network_checks, program_checks
from distvae.machines.doctor.copies_check import check_copies
from distvae.machines.doctor.diagnosis import Diagnosis, count_states, merge_machines
from distvae.machines.doctor.examination import clock_offset, machine_names
from distvae.machines.doctor.facts import Facts, gather_facts
from distvae.machines.ray_api import NodeInfo

GIB = 2**30
FACTS: Facts = gather_facts() | {
    "gpus": {"devices": 2, "usable": 2, "why": ""},
    "cpus": {"machine": 8, "allowed": 8, "quota": None, "load": 1.0},
    "memory": {"free": 8 * GIB, "limit": None},
    "shared_memory": {"free": 4 * GIB, "total": 4 * GIB},
    "pesq": {"works": True, "why": "", "compiler": True, "headers": True},
    "access": {"mode": "token", "file": "/home/me/token", "permissions": 0o600},
    "listening": [],
}


def changed(**parts: Mapping[str, Any]) -> Facts:
    """The facts of a sound machine but for some."""
    facts = copy.deepcopy(FACTS)
    for name, part in parts.items():
        facts[name] = {**facts[name], **part}
    return facts


def all_of(facts: Facts, several: bool = True) -> list[Diagnosis]:
    return [
        *program_checks.check_programs("there", facts, FACTS),
        *program_checks.check_source("there", facts, FACTS),
        *hardware_checks.check_processors("there", facts, 8),
        *hardware_checks.check_gpus("there", facts, 2),
        *hardware_checks.check_memory("there", facts, GIB),
        *program_checks.check_pesq("there", facts),
        *network_checks.check_token("there", facts, several),
        *network_checks.check_ports("there", facts, None, several),
    ]


def wrong(lines: list[Diagnosis]) -> list[str]:
    assert all(line.remedy for line in lines if line.state in ("bad", "note"))
    return [f"{line.state} {line.what}" for line in lines if line.state in ("bad", "note")]


def test_a_machine_that_is_as_this_one_has_nothing_wrong() -> None:
    assert wrong(all_of(FACTS)) == []


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"packages": {"torch": "1.0"}}, "bad torch"),
        ({"packages": {"ray": "1.0"}}, "bad ray"),
        ({"source": {"digest": "000000000000"}}, "note code"),
        ({"cpus": {"quota": 2.0}}, "note processors"),
        ({"cpus": {"allowed": 4}}, "note processors"),
        ({"cpus": {"load": 80.0}}, "note processors"),
        ({"gpus": {"usable": 0, "why": "Torch not compiled with CUDA enabled"}}, "bad GPUs"),
        ({"gpus": {"usable": 1}}, "note GPUs"),
        ({"gpus": {"devices": 1, "usable": 1}}, "note GPUs"),
        ({"memory": {"free": GIB // 2}}, "bad memory"),
        ({"shared_memory": {"free": 2**26, "total": 2**26}}, "bad shared memory"),
        ({"shared_memory": {"free": 2**20}}, "bad shared memory"),
        ({"pesq": {"works": False, "why": "No module named 'pesq'"}}, "note PESQ"),
        ({"access": {"mode": "disabled"}}, "bad tokens"),
        ({"access": {"permissions": 0o644}}, "bad tokens"),
    ],
)
def test_each_fault_is_said_and_nothing_else(parts: dict[str, Any], expected: str) -> None:
    assert wrong(all_of(changed(**parts))) == [expected]


def test_another_python_and_no_package_at_all() -> None:
    assert wrong(
        list(program_checks.check_programs("there", FACTS | {"python": "3.10.1"}, FACTS))
    ) == ["bad Python"]
    assert wrong(list(program_checks.check_source("there", FACTS | {"source": None}, FACTS))) == [
        "bad code"
    ]


def test_what_pesq_needs_is_named() -> None:
    bare = changed(pesq={"works": False, "why": "missing", "compiler": False, "headers": True})
    [line] = program_checks.check_pesq("there", bare)
    assert "gcc" in line.remedy
    assert "python3-dev" not in line.remedy


def socket(address: str, port: int, kind: str, process: str | None) -> dict[str, Any]:
    return {"address": address, "port": port, "kind": kind, "process": process}


@pytest.mark.parametrize(
    ("opened", "mode", "expected"),
    [
        (socket("127.0.0.1", 8265, "dashboard", "dashboard"), "token", []),
        (socket("0.0.0.0", 8265, "dashboard", "dashboard"), "token", ["bad listening"]),
        (socket("::", 8265, "other", None), "token", ["bad listening"]),
        (socket("10.0.0.1", 9999, "other", None), "token", ["bad listening"]),
        (socket("10.0.0.1", 5000, "mlflow", "MLflow"), "token", ["bad listening"]),
        (socket("::1", 5000, "mlflow", "MLflow"), "token", []),
        (socket("::ffff:127.0.0.1", 5000, "mlflow", "MLflow"), "token", []),
        (socket("0.0.0.0", 6379, "ray", "head"), "token", []),
        (socket("0.0.0.0", 6379, "ray", "head"), "disabled", ["bad listening"]),
        (socket("0.0.0.0", 22, "other", "sshd"), "disabled", []),
    ],
)
def test_what_may_not_be_open_to_the_network(
    opened: dict[str, Any], mode: str, expected: list[str]
) -> None:
    facts = changed(access={"mode": mode}) | {"listening": [opened]}
    lines = list(network_checks.check_ports("there", facts, dashboard_port=9999, several=True))
    assert wrong(lines) == expected
    assert any(str(opened["port"]) in line.found for line in lines)


@given(skew=st.floats(-100, 100), outward=st.floats(0, 3), back=st.floats(0, 3))
def test_a_clock_is_bad_only_if_it_is_and_always_if_it_is_far_off(
    skew: float, outward: float, back: float
) -> None:
    """The way there and the way back may differ: the offset is known to half of their sum, and no
    better.
    """
    now = [1000.0]

    def remote() -> float:
        now[0] += outward
        answer = now[0] + skew
        now[0] += back
        return answer

    offset, unsure = clock_offset(remote, lambda: now[0])
    assert abs(offset - skew) <= unsure + 1e-6
    bad = [line.state for line in hardware_checks.check_clock("there", offset, unsure)] == ["bad"]
    assert not (bad and abs(skew) < hardware_checks.MAX_CLOCK_SKEW - 1e-6)
    assert bad or abs(skew) <= hardware_checks.MAX_CLOCK_SKEW + outward + back + 1e-6


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
    lines = network_checks.check_storage(trip, {node: node for node in nodes}, "/shared")
    assert {line.where for line in lines if line.state == "bad"} == barred | {
        me for me, _ in trip.unseen
    }


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


def test_the_lock_is_read_and_other_versions_are_noted_not_condemned() -> None:
    wanted = program_checks.parse_lock("# a comment==1\nTorch==2.13.0\nimportlib_metadata==9.1.0\n")
    assert wanted == {"torch": "2.13.0", "importlib-metadata": "9.1.0"}
    facts = changed(packages={"torch": "2.13.0+cpu", "importlib-metadata": "8.0"})
    [line] = program_checks.check_pins("here", facts, wanted)
    assert (line.state, "importlib-metadata 8.0 (9.1.0)" in line.found) == ("note", True)
    del facts["packages"]["optuna"]
    assert wrong(list(program_checks.check_pins("here", facts, wanted))) == [
        "bad packages",
        "note packages",
    ]


def test_a_disk_that_is_full() -> None:
    def state(free: int, total: int) -> str:
        return next(
            hardware_checks.check_disk("there", "disk", "/tmp", {"free": free, "total": total})
        ).state

    assert [state(50 * GIB, 100 * GIB), state(4 * GIB, 100 * GIB), state(GIB // 2, GIB)] == [
        "ok",
        "note",
        "bad",
    ]
    assert next(hardware_checks.check_disk("there", "disk", "/tmp", None)).state == "bad"


def test_lines_of_several_machines_are_told_together_where_they_do_not_differ() -> None:
    lines = [
        Diagnosis("ok", "a", "x", "same"),
        Diagnosis("bad", "b", "x", "one"),
        Diagnosis("ok", "a", "y", "same"),
    ]
    assert merge_machines(lines, ["x", "y"]) == [
        Diagnosis("ok", "a", "all 2", "same"),
        Diagnosis("bad", "b", "x", "one"),
    ]
    assert count_states(lines) == "1 bad, 2 ok"


def test_machines_that_share_an_address_have_names_of_their_own() -> None:
    nodes = {
        key: NodeInfo(
            NodeID=key,
            NodeManagerAddress=address,
            NodeManagerPort=port,
            Alive=True,
            Resources={},
        )
        for key, address, port in (("a", "10.0.0.1", 1), ("b", "10.0.0.1", 2), ("c", "10.0.0.2", 1))
    }
    assert machine_names(nodes) == {"a": "10.0.0.1:1", "b": "10.0.0.1:2", "c": "10.0.0.2"}


def test_the_doctor_says_where_workers_and_copies_would_be() -> None:
    (several,) = check_copies({"head": 0.0, "a": 2.0, "b": 1.0})
    assert several.state == "ok"
    assert several.found == (
        "room for 3 workers on 2 machines; copies: one beside each worker, one elsewhere"
    )
    (one,) = check_copies({"a": 4.0})
    assert (one.state, one.found) == (
        "info",
        "room for 4 workers, all on a, and their copies beside them",
    )
    (none,) = check_copies({"head": 0.0})
    assert none.state == "bad"
