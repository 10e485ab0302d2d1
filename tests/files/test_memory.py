"""Free memory is that of the machine or of the container, whichever is less."""

from pathlib import Path

from distvae.files.memory import available_memory


def machine(folder: Path, free_kb: int) -> Path:
    (folder / "meminfo").write_text(f"MemTotal:       16000000 kB\nMemAvailable:   {free_kb} kB\n")
    return folder


def test_the_machine_says_what_is_free(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, 4000), tmp_path) == 4_096_000


def test_a_container_may_leave_less_than_its_machine(tmp_path: Path) -> None:
    machine(tmp_path, 4000)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert available_memory(tmp_path, tmp_path) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path, tmp_path) == 4_096_000


def test_the_first_version_of_control_groups_counts_too(tmp_path: Path) -> None:
    machine(tmp_path, 4000)
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("500\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("700\n")
    assert available_memory(tmp_path, tmp_path) == 0


def test_a_system_that_does_not_tell_has_what_is_built_in(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path) > 2**28
