"""`distvae cluster init` writes a folder that is like a checkout, and replaces nothing unasked."""

from pathlib import Path

import pytest

from distvae.cli.cluster import init
from distvae.files.refusal import Refusal

ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_folder_has_the_files_of_the_checkout(tmp_path: Path) -> None:
    init(tmp_path / "mine", force=False)
    written = contents(tmp_path / "mine")
    assert {
        Path("cluster/cluster.yaml"),
        Path("requirements.lock"),
        Path("distvae/cli/submit.py"),
    } <= (set(written))
    assert {path for path in written if path.parts[0] == "cluster"} == {
        path.relative_to(ROOT) for path in (ROOT / "cluster").glob("*.*")
    } | {Path("cluster/Dockerfile")}
    assert written == {path: (ROOT / path).read_bytes() for path in written}


def test_what_is_there_already_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    init(tmp_path, force=False)
    init(tmp_path, force=False)  # the same again
    (tmp_path / "cluster" / "aws.yaml").write_text("mine")
    with pytest.raises(Refusal, match=r"cluster/aws\.yaml"):
        init(tmp_path, force=False)
    assert (tmp_path / "cluster" / "aws.yaml").read_text() == "mine"
    init(tmp_path, force=True)
    assert (tmp_path / "cluster" / "aws.yaml").read_bytes() == (
        ROOT / "cluster" / "aws.yaml"
    ).read_bytes()


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(Refusal, match=r"notes\.txt"):
        init(tmp_path, force=False)
    assert list(contents(tmp_path)) == [Path("notes.txt")]
