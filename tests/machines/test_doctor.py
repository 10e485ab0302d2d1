"""`distvae doctor` of this machine, of a cluster file, and of Rays of two machines."""

import json
import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.machines.cluster import program_versions
from distvae.machines.doctor import (
    Facts,
    Finding,
    check_copies,
    check_gpus,
    check_port,
    check_versions,
    examine_cluster,
    gather_facts,
)
from tests.called import Called
from tests.ports import free_port
from tests.ray_cluster import HERE, cluster_in_two_folders

FACTS = Facts(program_versions(), 0, "")
WITHOUT_TOKEN = """
import sys
from ray.cluster_utils import Cluster
machines = Cluster(initialize_head=True, head_node_args={"include_dashboard": False})
print(machines.address, flush=True)
sys.stdin.read()
machines.shutdown()
"""
ROOT = Path(__file__).parents[2]


def doctor(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "distvae", "doctor", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_facts_are_what_python_and_torch_say() -> None:
    facts = gather_facts()
    assert facts.versions["python"] == sys.version.split()[0]
    for name in ("torch", "ray", "distvae"):
        assert facts.versions[name] == version(name)
    assert (facts.gpus, facts.error) == (torch.cuda.device_count(), "")


@pytest.mark.slow
def test_this_machine_alone(tmp_path: Path, call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call("doctor", "--json")
    findings = [Finding(**json.loads(line)) for line in out.splitlines()]
    assert {finding.what for finding in findings} == {"versions", "GPUs", "port"}
    assert all(len(str(finding).splitlines()) == 1 for finding in findings)
    assert code == any(finding.state == "bad" for finding in findings)
    assert (err, list(tmp_path.iterdir())) == ("", [])


def test_a_torch_that_does_not_answer_in_time_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distvae.machines.doctor.CHILD_SECONDS", 0.01)
    finding = check_gpus("there", gather_facts(), 0, "Ray")
    assert (finding.state, finding.found) == ("bad", "torch fails: no answer within 0.01 s")


@given(st.sampled_from(sorted(FACTS.versions)), st.sampled_from(["0.1", "1.0+other"]))
def test_a_version_that_differs_is_told_with_both(name: str, other: str) -> None:
    assert check_versions("there", FACTS).state == "ok"
    finding = check_versions("there", FACTS._replace(versions={**FACTS.versions, name: other}))
    assert (finding.state, finding.found) == (
        "bad",
        f"{name} {other}, but {FACTS.versions[name]} here",
    )


@given(st.integers(0, 8), st.integers(0, 8))
def test_gpus_that_torch_does_not_see_are_wrong(seen: int, counted: int) -> None:
    finding = check_gpus("there", Facts({}, seen, ""), counted, "Ray")
    assert (finding.state == "bad") == (seen < counted)
    assert (finding.state == "ok") == (seen == counted) == (finding.remedy == "")
    assert check_gpus("there", Facts({}, seen, "no libcuda"), counted, "Ray").state == "bad"


def test_a_port_is_taken_while_a_program_listens_there() -> None:
    port, address = free_port(), "127.0.0.2"
    assert check_port(port, "MLflow").state == "ok"
    with socket.create_server((address, port)):
        finding = check_port(port, "MLflow")
    assert (finding.state, str(port) in finding.found) == ("note", True)
    assert check_port(port, "MLflow").state == "ok"


@given(st.lists(st.integers(0, 4), max_size=5))
def test_copies_are_well_placed_if_each_worker_has_another_machine(processors: list[int]) -> None:
    workers = [machine for machine, count in enumerate(processors) for _ in range(count)]
    apart = all(set(workers) - {worker} for worker in workers)
    finding = check_copies(processors)
    assert f" {len(workers)} workers on {len(set(workers))} machines" in finding.found
    assert (finding.state == "bad") == (not workers)
    assert (finding.state == "ok") == (bool(workers) and apart)


def test_a_cluster_file_names_files_that_exist_or_the_one_that_does_not(
    tmp_path: Path, call: Called
) -> None:
    file, key = tmp_path / "cluster.yaml", tmp_path / "key"
    file.write_text(f"provider: {{}}\nauth: {{ssh_private_key: {key}}}\nfile_mounts: {{~/x: .}}\n")
    code, out, _ = call("doctor", "--file", str(file))
    assert code == 1
    [line] = [line for line in out.splitlines() if line.startswith("bad ")]
    assert f"auth.ssh_private_key: {key} does not exist -> " in line
    key.touch()
    assert call("doctor", "--file", str(file))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--file", "x.yaml", "--address", "10.0.0.1:6379"), "--file"),
        (("--file", str(ROOT / "CITATION.cff")), "no 'provider'"),
        (("--storage", "x"), "--storage"),
        (("--address", "127.0.0.1:9"), "nothing answers there"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[str, ...], named: str, call: Called) -> None:
    code, out, err = call("doctor", *arguments)
    assert (code, out) == (2, "")
    assert named in err.splitlines()[-1]


@pytest.mark.slow
def test_a_folder_that_machines_do_not_share_is_told_of_each(tmp_path: Path) -> None:
    with cluster_in_two_folders(tmp_path, cpus=3) as machines:
        together = list(examine_cluster(machines.address, str(tmp_path / "store")))
        apart = list(examine_cluster(machines.address, str(HERE / "store")))
    states = {finding.what: finding.state for finding in together}
    expected = dict.fromkeys(("token", "versions", "GPUs", "storage"), "ok")
    assert states == expected | {"copies": "note"}, "the head has no processors"
    assert len([finding for finding in together if finding.what == "versions"]) == 2
    bad = [finding.what for finding in apart if finding.state == "bad"]
    assert bad == ["storage", "storage"]
    for folder in (tmp_path, tmp_path / "one", tmp_path / "other"):
        assert list((folder / "store").iterdir()) == []


@pytest.mark.slow
def test_a_ray_that_lets_in_a_process_without_a_token_is_wrong(tmp_path: Path) -> None:
    variables = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_TOKEN],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        address = program.stdout.readline().strip()
        done = doctor(tmp_path, "--address", address, "--json", RAY_AUTH_MODE="disabled")
        program.communicate()
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [finding["what"] for finding in findings if finding["state"] == "bad"]
    assert done.returncode == 1, done.stderr
    assert "token" in bad  # on a loaded machine other checks may not answer in time
