"""The kernel's text about processors is read correctly."""

import platform
from pathlib import Path

import pytest

from distvae import system
from distvae.system import processor_kind


@pytest.fixture(autouse=True)
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the system tells about itself."""
    monkeypatch.setattr(system, "PROC", tmp_path)
    return tmp_path


def test_an_arm_processor_is_known_by_its_numbers(told: Path) -> None:
    core = "processor\t: {}\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"
    (told / "cpuinfo").write_text(core.format(0) + "\n" + core.format(1))
    assert processor_kind() == "0x41 0xd0c"


def test_a_system_that_does_not_tell_names_its_processor() -> None:
    assert processor_kind() == (platform.processor() or platform.machine())
