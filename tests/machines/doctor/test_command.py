"""`distvae doctor` on this machine, on a Ray of two, and asked for what it cannot do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distvae.machines.doctor.examination import examine_cluster
from tests.ray_cluster import HERE, cluster_in_two_folders


def doctor(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "distvae", "doctor", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_this_machine_alone(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--storage", str(tmp_path / "store"), "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert done.returncode == any(line["state"] == "bad" for line in lines)
    assert {"processors", "memory", "disk", "runs", "MLflow", "storage", "PESQ"} <= {
        line["what"] for line in lines
    }
    assert list((tmp_path / "store").iterdir()) == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("columns", [80, 140])
def test_a_fault_is_red_and_told_in_words_at_any_width(columns: int, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token")
    token.chmod(0o644)
    done = doctor(tmp_path, RAY_AUTH_TOKEN_PATH=str(token), COLUMNS=str(columns))
    assert done.returncode == 1
    assert "secret-token" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= columns
    [line] = [line for line in done.stdout.splitlines() if line.startswith("bad ")]
    assert "tokens" in line
    assert f"-> chmod 600 {token}" in " ".join(done.stdout.split()) or columns == 80


@pytest.mark.slow
def test_records_of_mlflow_that_cannot_be_read_are_bad(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_text("no database")
    done = doctor(tmp_path, "--json")
    [line] = [
        line for line in map(json.loads, done.stdout.splitlines()) if line["what"] == "MLflow"
    ]
    assert (done.returncode, line["state"]) == (1, "bad")
    assert "mlflow.db" in line["found"]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    both = doctor(tmp_path, "--file", "x.yaml", "--address", "10.0.0.1:6379")
    nobody = doctor(tmp_path, "--address", "127.0.0.1:9")
    assert (both.returncode, nobody.returncode) == (2, 2)
    assert "--file" in both.stderr
    assert "nothing answers there" in nobody.stderr


def test_a_ray_of_another_version_is_a_fault_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def init(*_: object, **__: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.59.0")

    services = "ray._private.services.canonicalize_bootstrap_address"
    monkeypatch.setattr(services, lambda address: None)  # none runs here
    monkeypatch.setattr(ray, "init", init)
    [line] = examine_cluster("auto", tmp_path, None)
    assert (line.state, line.what, line.where) == ("bad", "Ray", "auto")
    assert "Ray: 2.59.0" in line.found
    assert "the same Ray and Python here as there" in line.remedy


@pytest.mark.long
def test_machines_of_a_ray_are_asked_and_the_one_that_sees_another_folder_is_told(
    tmp_path: Path,
) -> None:
    with cluster_in_two_folders(tmp_path, cpus=1000) as machines:
        together = examine_cluster(machines.address, tmp_path / "runs", str(tmp_path / "store"))
        apart = examine_cluster(machines.address, tmp_path / "runs", str(HERE / "store"))
    by_subject = {line.what: line for line in together if line.where == "all 2"}
    assert {"programs", "code", "tokens", "clock", "storage"} <= set(by_subject)
    # Free memory changes between two looks.
    assert {"memory", "disk"} <= {line.what for line in together}
    assert (
        by_subject["storage"].state
        == by_subject["clock"].state
        == by_subject["programs"].state
        == "ok"
    )
    [counted] = [
        line for line in together if line.what == "processors" and "Ray counts 1000" in line.found
    ]
    assert counted.state == "note"
    blind = [line for line in apart if line.what == "storage" and line.state == "bad"]
    assert len({line.where for line in blind}) == 2
    for folder in (tmp_path, tmp_path / "one", tmp_path / "other"):
        assert list((folder / "store").iterdir()) == []
