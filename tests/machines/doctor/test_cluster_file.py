"""A cluster file before anything is started: what Ray refuses, what is still to be filled in, what
is missing here.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from distvae.files.refusal import Refusal
from distvae.machines.doctor.cluster_file import (
    check_prerequisites,
    check_schema,
    check_traps,
    examine_cluster_file,
    find_placeholders,
    machines_of,
    python_of,
    read_cluster_file,
    storage_of,
)
from distvae.machines.doctor.ssh_host import (
    SshHost,
    check_requirements,
    diagnose_failed_login,
    diagnose_host_key,
    quote_folder,
)

SOUND: dict[str, Any] = {
    "cluster_name": "lab",
    "provider": {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]},
    "auth": {"ssh_user": "me"},
    "setup_commands": [
        "python3.12 -m venv ~/env",
        "echo 'export RAY_AUTH_MODE=token DISTVAE_STORAGE=/mnt/shared/runs' >> ~/.env",
    ],
    "head_start_ray_commands": [
        "export RAY_enable_autoscaler_v2=0; ray start --head --autoscaling-config=~/ray.yaml"
    ],
}
HOST = SshHost("10.0.0.1", "me", "/home/me/key", None)


def edited(path: str, value: object) -> dict[str, Any]:
    """The sound file with one value changed."""
    config = copy.deepcopy(SOUND)
    *parents, last = path.split(".")
    at = config
    for parent in parents:
        at = at[parent]
    at[last] = value
    return config


def test_a_sound_file_is_accepted_and_read() -> None:
    assert [line.state for line in check_schema(SOUND | {"min_workers": 2})] == ["ok"]
    assert list(check_traps(SOUND)) == []
    assert [host.login for host in machines_of(SOUND)] == [
        "me@10.0.0.1",
        "me@10.0.0.2",
        "me@10.0.0.3",
    ]
    assert (python_of(SOUND), storage_of(SOUND)) == ("python3.12", "/mnt/shared/runs")
    assert python_of({"provider": {}}) == "python3.11"


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("cluster_nam", "x", "cluster_nam"),
        ("auth.ssh_usr", "x", "ssh_usr"),
        ("available_node_types", {"a": {}}, "available_node_types"),
        ("max_workers", "many", "max_workers"),
        ("setup_commands", "one", "setup_commands"),
        ("provider", {"type": "local"}, "head_ip"),
    ],
)
def test_what_ray_refuses_is_said_in_a_line(path: str, value: object, named: str) -> None:
    [line] = check_schema(edited(path, value))
    assert line.state == "bad"
    assert named in line.found
    assert "\n" not in line.found


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("ray start --head --autoscaling-config=~/ray.yaml", "bad"),
        ("export RAY_enable_autoscaler_v2=0; ray start --head", "bad"),
        (
            (
                "export RAY_enable_autoscaler_v2=0; ray start --autoscaling-config=x"
                " --dashboard-host=0.0.0.0"
            ),
            "bad",
        ),
    ],
)
def test_what_ray_accepts_and_does_not_do(command: str, state: str) -> None:
    [line] = check_traps(edited("head_start_ray_commands", [command]))
    assert line.state == state


def test_tokens_that_no_command_asks_for_are_noted() -> None:
    assert [line.what for line in check_traps(edited("setup_commands", []))] == ["tokens"]


def test_what_is_still_to_be_filled_in_is_told_by_line() -> None:
    text = (
        "a: 1\nimage: ami-00000000000000000\nuser: <your name>  # <remark>\nkey: ~/.ssh/id  #"
        " <remark>\n"
    )
    lines = list(find_placeholders(text))
    assert [line.found.partition(":")[0] for line in lines] == ["line 2", "line 3"]
    assert (
        list(find_placeholders("command: a <b >c && cat <<END\nimage: ami-0a1b2c3d4e5f60718\n"))
        == []
    )


def test_what_is_missing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = SOUND | {
        "auth": {"ssh_private_key": "/no/key"},
        "file_mounts": {"~/a": "/no/folder", "~/b": str(tmp_path)},
    }
    assert [(line.state, line.what) for line in check_prerequisites(config)] == [
        ("bad", "rsync"),
        ("bad", "ssh"),
        ("bad", "key"),
        ("bad", "file_mounts"),
    ]


def test_machines_that_are_made_cannot_be_asked(tmp_path: Path) -> None:
    file = tmp_path / "aws.yaml"
    file.write_text(
        yaml.safe_dump(
            {"cluster_name": "x", "provider": {"type": "aws", "region": "r"}, "max_workers": 0}
        )
    )
    assert any("makes the machines" in line.found for line in examine_cluster_file(file, None))


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "provider: local\n", "\xff"])
def test_what_is_no_cluster_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(Refusal, match="--file: "):
        read_cluster_file(file)
    with pytest.raises(Refusal, match=r"nothing\.yaml"):
        read_cluster_file(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("ssh: connect to host 10.0.0.1 port 22: Connection refused", "nothing answers"),
        ("ssh: connect to host 10.0.0.1 port 22: Connection timed out", "nothing answers"),
        ("ssh: Could not resolve hostname node7: Name or service not known", "nothing answers"),
        ("Connection timed out during banner exchange", "nothing answers"),
        ("me@10.0.0.1: Permission denied (publickey).", "the key is refused: /home/me/key"),
        (
            "@ WARNING: UNPROTECTED PRIVATE KEY FILE! @\nme@h: Permission denied (publickey).",
            "/home/me/key can be read",
        ),
        ("kex_exchange_identification: read: reset", "kex_exchange_identification: read: reset"),
        ("", "ssh failed without a message"),
    ],
)
def test_words_of_ssh_are_understood(error: str, expected: str) -> None:
    line = diagnose_failed_login(HOST, error)
    assert (line.state, line.where) == ("bad", "10.0.0.1")
    assert line.found.startswith(expected)
    assert line.remedy
    assert diagnose_host_key(HOST, error) is None


def test_a_machine_with_too_little_of_everything() -> None:
    lines = list(
        check_requirements(
            HOST, {"rsync": "", "python": "Python 3.11.7", "venv": "", "free": "1000"}, "python3.11"
        )
    )
    assert [line.state for line in lines] == ["bad"] * 4
    assert "python3.11-venv" in lines[2].remedy


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/mnt/shared", "/mnt/shared"),
        ("/mnt/a b; rm -rf x", "'/mnt/a b; rm -rf x'"),
        ("~/runs", '"$HOME"/runs'),
        ("$HOME/my runs", "\"$HOME\"'/my runs'"),
        ("~", '"$HOME"'),
        ("~other/runs", "'~other/runs'"),
    ],
)
def test_folders_are_quoted_for_the_shell(folder: str, expected: str) -> None:
    assert quote_folder(folder) == expected
