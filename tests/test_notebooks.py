"""The notebooks of the documentation run, and have the outputs that they were committed with."""

from pathlib import Path

import nbformat
import pytest

from docs.site.execute import NOTEBOOKS, VERSION, arithmetic, execute, printed


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_committed_notebook_is_small_and_names_no_folder_of_a_machine(file: Path) -> None:
    text = file.read_text()
    assert len(text) < 300_000
    folders = ("/home/", "/root/", "/tmp/", "/Users/", f"{Path.home()}/", str(file.parents[2]))
    assert not any(folder in text for folder in folders)
    for cell in nbformat.reads(text, VERSION).cells:
        for output in cell.get("outputs", []):
            assert output.output_type in ("display_data", "execute_result", "stream")
            assert output.get("name") != "stderr"


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=[pytest.mark.long] * (file.stem != "picture"))
        for file in NOTEBOOKS
    ],
)
def test_a_notebook_prints_what_it_was_committed_with(file: Path, tmp_path: Path) -> None:
    """It prints the same numbers on a processor and with versions like the recorded ones.

    On other machines the notebook must run, with the same number of outputs for each cell.
    """
    committed, found = nbformat.read(file, VERSION), execute(file, tmp_path)
    for before, now in zip(committed.cells, found.cells, strict=True):
        assert len(now.get("outputs", [])) == len(before.get("outputs", [])), before.id
    assert printed(committed)
    if committed.metadata.arithmetic == arithmetic():
        assert printed(found) == printed(committed)
