"""The page of results says what the rows say: means over seeds, half the range as spread."""

import json
from pathlib import Path
from typing import Any

import pytest

from distvae.files.refusal import Refusal
from distvae.report import results
from distvae.train.session import fit
from tests import tiny


def row(name: str, seed: int, **figures: float | None) -> dict[str, Any]:
    """A finished row."""
    config = {"train.seed": seed}
    known = {
        "table": "speech",
        "row": name,
        "commit": "0123456789ab",
        "seconds": 10.0,
        "epochs": 30,
    }
    return known | {"config": config, "figures": figures}


def page(folder: Path) -> list[list[str]]:
    """The cells of the only table of the page."""
    results.build(folder, folder / "page.md")
    lines = (folder / "page.md").read_text().splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]


def test_seeds_of_a_row_are_averaged_and_their_spread_is_half_the_range(tmp_path: Path) -> None:
    results.write(tmp_path, row("vae-s0", 0, pesq_wb=2.5, hoyer=0.2), force=False)
    results.write(tmp_path, row("vae-s1", 1, pesq_wb=2.7, hoyer=0.2), force=False)
    results.write(tmp_path, row("pca", 0, pesq_wb=2.66, hoyer=None), force=False)
    head, _, *rows = page(tmp_path)
    cells = {cells[0]: dict(zip(head, cells, strict=True)) for cells in rows}
    assert cells["vae"]["PESQ wb"] == "2.60 ± 0.10"
    assert cells["vae"]["Hoyer"] == "0.200"
    assert cells["vae"]["seeds"] == "2"
    assert cells["pca"]["Hoyer"] == "-"


def test_only_the_largest_scale_counts_and_of_it_every_seed_once(tmp_path: Path) -> None:
    for name, seed, scale, figure in (
        ("vae-s0", 0, "smoke", 1.0),
        ("vae-s1", 1, "day", 2.0),
        ("vae-s2", 2, "day", 2.2),
        ("vae", 2, "day", 2.2),
        ("pca", 0, "smoke", 3.0),
    ):
        results.write(tmp_path, row(name, seed, pesq_wb=figure) | {"scale": scale}, force=False)
    head, _, *rows = page(tmp_path)
    cells = {cells[0]: dict(zip(head, cells, strict=True)) for cells in rows}
    shown = {
        name: [cell[key] for key in ("PESQ wb", "scale", "seeds")] for name, cell in cells.items()
    }
    assert shown == {"vae": ["2.10 ± 0.10", "day", "2"], "pca": ["3.00", "smoke", "1"]}


def test_a_row_of_a_program_without_history_is_a_row(tmp_path: Path) -> None:
    results.write(tmp_path, row("pca", 0, pesq_wb=2.66) | {"commit": None}, force=False)
    head, _, cells = page(tmp_path)
    assert dict(zip(head, cells, strict=True))["commit"] == "-"


DAMAGED = {"{": "not the JSON", "[3]": "not the JSON", '{"row": "a"}': "no commit", "{}": "no row"}


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_row_is_named(tmp_path: Path, content: str) -> None:
    results.write(tmp_path, row("vae-s0", 0, hoyer=0.2), force=False)
    (tmp_path / "speech" / "pca.json").write_text(content)
    with pytest.raises(Refusal, match=rf"pca\.json: .*damaged: {DAMAGED[content]}"):
        results.build(tmp_path, None)


@pytest.mark.parametrize(
    ("name", "content"),
    [("epochs.jsonl", line) for line in ("{\n", "3\n", '{"epoch": 1}\n', "")]
    + [("evaluation/test/summary.json", text) for text in ("{", "3", "")],
)
def test_a_damaged_record_of_a_run_is_named(tmp_path: Path, name: str, content: str) -> None:
    list(fit(tiny.config(), tiny.dataset(), tmp_path / "run"))
    (tmp_path / "run" / "evaluation" / "test").mkdir(parents=True)
    (tmp_path / "run" / "evaluation" / "test" / "summary.json").write_text('{"hoyer": 0.25}')
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(Refusal, match=name):
        results.add(tmp_path / "rows", tmp_path / "run", "tiny", force=False)


def test_the_page_begins_with_how_far_rows_are_from_what_was_published(tmp_path: Path) -> None:
    for name, figure, published in (
        ("a-s0", 2.0, 2.5),
        ("a-s1", 2.2, 2.5),
        ("b", 3.0, 1.0),
        ("c", 1.0, 1.001),
        ("d", 9.0, None),
    ):
        beside = {"published": {"pesq_wb": published}} if published else {}
        results.write(
            tmp_path, row(name, int(name[-1] == "1"), pesq_wb=figure) | beside, force=False
        )
    head, _, held, *_ = page(tmp_path)
    assert dict(zip(head, held, strict=True)) == {
        "table": "`speech`",
        "figure": "PESQ wb",
        "rows": "3",
        "least": "-0.40 (a)",
        "median": "+0.00",
        "most": "+2.00 (b)",
    }


def test_a_row_is_not_replaced_unasked(tmp_path: Path) -> None:
    results.write(tmp_path, row("vae-s0", 0, hoyer=0.2), force=False)
    with pytest.raises(Refusal, match="--force"):
        results.write(tmp_path, row("vae-s0", 0, hoyer=0.9), force=False)
    assert json.loads((tmp_path / "speech" / "vae-s0.json").read_text())["figures"]["hoyer"] == 0.2


def test_a_run_becomes_a_row_only_when_it_was_judged(tmp_path: Path) -> None:
    list(fit(tiny.config(), tiny.dataset(), tmp_path / "vae-s0"))
    with pytest.raises(Refusal, match="distvae evaluate"):
        results.add(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
    judged = tmp_path / "vae-s0" / "evaluation" / "test"
    judged.mkdir(parents=True)
    (judged / "summary.json").write_text('{"hoyer": 0.25}')
    epochs = tmp_path / "vae-s0" / "epochs.jsonl"
    told = epochs.read_bytes()
    epochs.write_bytes(b"")
    with pytest.raises(
        Refusal, match=r"epochs\.jsonl: tells of no epoch; the file that training wrote expected"
    ):
        results.add(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
    epochs.write_bytes(told)
    results.add(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
    (kept,) = results.read(tmp_path / "rows", "tiny")
    assert kept["figures"]["hoyer"] == 0.25
    assert kept["config"]["model.latent"] == 4
    assert "data.path" not in kept["config"]


def test_a_run_that_is_under_way_is_no_row(tmp_path: Path) -> None:
    training = fit(tiny.config(), tiny.dataset(), tmp_path / "vae-s0")  # which ends with this test
    next(training)
    with pytest.raises(
        Refusal, match=r"run\.json: says nothing of seconds; a run that was trained to an end"
    ):
        results.add(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no rows"):
        results.build(tmp_path, None)
