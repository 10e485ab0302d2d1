"""Progress in a notebook. IPython is not among the packages of the tests, so a stand-in with the
same functions records what a cell would show.
"""

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest

from distvae.train.loop import Epoch
from distvae.train.progress import Progress, in_notebook, progress_bar


@dataclass
class Cell:
    """The output of a cell: its content, and the number of times it was replaced."""

    shown: str = ""
    replaced: int = 0

    def update(self, html: str) -> None:
        self.shown, self.replaced = html, self.replaced + 1


@dataclass
class Kernel:
    cells: list[Cell] = field(default_factory=list)

    def display(self, html: str, display_id: bool) -> Cell:
        self.cells.append(Cell(html))
        return self.cells[-1]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found, package, shown = Kernel(), ModuleType("IPython"), ModuleType("IPython.display")
    vars(package)["get_ipython"] = lambda: SimpleNamespace(kernel=found)
    vars(shown).update(HTML=str, display=found.display)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    return found


def epoch(number: int) -> Epoch:
    figures = {"train_objective": -1.0, "val_objective": -2.0, "val_bound": -3.0}
    return Epoch.read({"epoch": number, "seconds": number, **figures}, epochs=4)


def test_a_bar_is_replaced_and_nothing_is_printed(
    kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("line", "row")
    for number in (1, 2, 3):
        progress.epoch(epoch(number))
    progress.end()
    (cell,) = kernel.cells
    assert cell.replaced == 3
    assert '<progress value="3" max="4">' in cell.shown
    assert "epoch 3/4" in cell.shown
    assert capsys.readouterr() == ("", "")


def test_a_quiet_training_shows_nothing(kernel: Kernel) -> None:
    Progress("quiet", "row").epoch(epoch(1))
    assert not kernel.cells


def test_text_beside_a_bar_is_no_markup() -> None:
    assert "<b>" not in progress_bar(1, 2, "<b>")


def test_a_process_without_a_kernel_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
