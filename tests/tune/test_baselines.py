"""Principal components beside the trials of a sweep."""

import csv
from pathlib import Path
from typing import Any

import pytest

from distvae.files.refusal import Refusal
from distvae.report.reading import read_sweep
from distvae.report.sweeps import sweep_page
from distvae.tasks.baselines import score_baseline
from distvae.tune.baselines import add_baseline, missing_baselines, read_baselines
from distvae.tune.results import Findings, Result, draw_front, print_findings, write_findings
from distvae.tune.space import read_space
from distvae.tune.validation import validate_space
from tests.report import folders

TREE: dict[str, Any] = {
    "base": "speech-vae",
    "fixed": {"data.path": "built-in speech", "eval.metrics": ["estoi"]},
    "metrics": {"estoi": "max", "hoyer": "max"},
    "axes": [
        {"key": "model.kind", "choice": ["vae", "vsc"]},
        {"key": "model.latent", "choice": [4, 8, 1024]},
    ],
}


def judged(number: int, values: dict[str, Any]) -> Result:
    return Result(number, values, "finished", 1, -1.0, {"estoi": 0.1 * number, "hoyer": 0.1})


def test_components_of_the_latent_sizes_are_scored_once_and_shown_among_the_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = read_space("tiny", TREE)
    results = folders.sweep(tmp_path, judged, **TREE | {"trials": 2})
    assert list(missing_baselines(space, tmp_path)) == ["pca-4", "pca-8"]
    add_baseline("pca-8", space, tmp_path)
    assert list(missing_baselines(space, tmp_path)) == ["pca-4"]
    (baseline,) = baselines = read_baselines(tmp_path)
    assert baseline.figures == pytest.approx(score_baseline("pca-8", space.base, "val"))
    findings = Findings(tmp_path, space.metrics, results, "", 0, "trials", (), baselines)
    write_findings(findings)
    with (tmp_path / "results.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert (last["state"], last["model.kind"], last["model.latent"]) == ("baseline", "pca-8", "8")
    assert float(last["estoi"]) == baseline.figures["estoi"]
    assert float(last["seconds"]) == baseline.seconds != baseline.figures["seconds"]
    print_findings(findings)
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert rows[1:4] == ["pca-8", "2", "1"]
    sections = {section.title: section for section in sweep_page(read_sweep(tmp_path)).sections}
    (table,) = sections["Trials"].tables
    assert [row.cells[0].text for row in table.rows] == rows[1:4]
    told = {finding.name: finding.text for finding in sections["Question and answer"].findings}
    assert told["baselines"] == (
        "pca-8 beats trial 2; pca-8 has a better estoi and hoyer than every trial"
    )
    axes = draw_front(results, space.metrics, (), baselines).axes[0]
    assert "pca-8" in {text.get_text() for text in axes.texts}


@pytest.mark.parametrize("axis", [{"key": "data.window", "choice": [512, 1024]}, None])
def test_other_data_than_the_same_recordings_have_no_baseline(
    axis: dict[str, Any] | None, tmp_path: Path
) -> None:
    tree = TREE | {"axes": [axis]} if axis else folders.TREE
    assert not list(missing_baselines(read_space("tiny", tree), tmp_path))


def test_a_single_latent_size_is_that_of_the_recipe(tmp_path: Path) -> None:
    axes = [{"key": "train.rate", "float": [1e-4, 1e-2]}]
    space = read_space("tiny", TREE | {"axes": axes})
    assert list(missing_baselines(space, tmp_path)) == ["pca-32"]


def test_a_space_names_its_baselines_or_none(tmp_path: Path) -> None:
    named = read_space("tiny", TREE | {"baselines": ["identity", "nmf-4", "pca-2-of-8"]})
    validate_space(named)
    assert list(missing_baselines(named, tmp_path)) == ["identity", "nmf-4", "pca-2-of-8"]
    for name in ("pca-2-of-8", "identity"):
        add_baseline(name, named, tmp_path)
    found = [(each.name, each.values.get("model.latent")) for each in read_baselines(tmp_path)]
    assert found == [("identity", None), ("pca-2-of-8", 8)]
    assert not list(missing_baselines(read_space("tiny", TREE | {"baselines": []}), tmp_path))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (TREE | {"baselines": ["pcb-4"]}, "baselines: pcb-4: no method for speech"),
        (folders.TREE | {"baselines": ["pca-4"]}, "baselines: need recordings"),
    ],
)
def test_a_baseline_that_cannot_be_scored_is_refused_before_the_sweep(
    tree: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        validate_space(read_space("tiny", tree))
