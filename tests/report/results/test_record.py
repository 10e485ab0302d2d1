"""A run or a baseline becomes a row only when it is finished and evaluated."""

from pathlib import Path

import pytest

from distvae.files.refusal import Refusal
from distvae.report.results.record import add_run
from distvae.report.results.rows import read_rows
from distvae.train.session import fit
from tests import tiny


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
        add_run(tmp_path / "rows", tmp_path / "run", "tiny", force=False)


def test_a_run_becomes_a_row_only_when_it_was_evaluated(tmp_path: Path) -> None:
    list(fit(tiny.config(), tiny.dataset(), tmp_path / "vae-s0"))
    with pytest.raises(Refusal, match="distvae evaluate"):
        add_run(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
    evaluation = tmp_path / "vae-s0" / "evaluation" / "test"
    evaluation.mkdir(parents=True)
    (evaluation / "summary.json").write_text('{"hoyer": 0.25}')
    epochs = tmp_path / "vae-s0" / "epochs.jsonl"
    content = epochs.read_bytes()
    epochs.write_bytes(b"")
    with pytest.raises(
        Refusal, match=r"epochs\.jsonl: has no epoch; the file that training wrote expected"
    ):
        add_run(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
    epochs.write_bytes(content)
    add_run(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
    (row,) = read_rows(tmp_path / "rows", "tiny")
    assert row.figures["hoyer"] == 0.25
    assert row.config["model.latent"] == 4
    assert "data.path" not in row.config


def test_an_unfinished_run_is_no_row(tmp_path: Path) -> None:
    training = fit(tiny.config(), tiny.dataset(), tmp_path / "vae-s0")  # which ends with this test
    next(training)
    with pytest.raises(
        Refusal, match=r"run\.json: has no seconds; a run that was trained to its end"
    ):
        add_run(tmp_path / "rows", tmp_path / "vae-s0", "tiny", force=False)
