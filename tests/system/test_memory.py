"""Free memory is the smaller of the machine's and the container's free memory."""

from pathlib import Path

import pytest

from distvae import system
from distvae.system import available_memory


@pytest.fixture(autouse=True)
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the system tells about itself."""
    monkeypatch.setattr(system, "PROC", tmp_path)
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    return tmp_path


def machine(folder: Path, free_kb: int) -> None:
    (folder / "meminfo").write_text(f"MemTotal:       16000000 kB\nMemAvailable:   {free_kb} kB\n")


def test_the_machine_says_what_is_free(told: Path) -> None:
    machine(told, 4000)
    assert available_memory() == 4_096_000


def test_a_container_may_leave_less_than_its_machine(told: Path) -> None:
    machine(told, 4000)
    (told / "memory.max").write_text("3000000\n")
    (told / "memory.current").write_text("1000000\n")
    assert available_memory() == 2_000_000
    (told / "memory.max").write_text("max\n")
    assert available_memory() == 4_096_000


@pytest.mark.parametrize(
    ("below", "limit", "used", "prefix"),
    [
        ("", "memory.max", "memory.current", ""),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
def test_cached_files_of_a_container_are_free(
    told: Path, below: str, limit: str, used: str, prefix: str
) -> None:
    machine(told, 4000)
    (told / below).mkdir(exist_ok=True)
    (told / below / limit).write_text("3000000\n")
    (told / below / used).write_text("2500000\n")
    parts = f"anon 900000\n{prefix}inactive_file 1000000\n{prefix}active_file 500000\n"
    (told / below / "memory.stat").write_text(parts)
    assert available_memory() == 2_000_000


def test_the_first_version_of_control_groups_counts_too(told: Path) -> None:
    machine(told, 4000)
    (told / "memory").mkdir()
    (told / "memory" / "memory.limit_in_bytes").write_text("500\n")
    (told / "memory" / "memory.usage_in_bytes").write_text("700\n")
    assert available_memory() == 0


def test_a_system_that_does_not_tell_has_what_is_built_in() -> None:
    assert available_memory() > 2**28
