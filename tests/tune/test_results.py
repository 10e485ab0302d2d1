"""Ranking trials, and the files that say what a sweep found."""

import csv
import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.files.untrusted import Plain
from distvae.tune.results import (
    Findings,
    Left,
    Result,
    draw_front,
    print_findings,
    rank,
    write_findings,
)
from distvae.tune.space import Directions

METRICS: Directions = {"pesq_wb": "max", "effective_atoms": "min"}


def result(number: int, quality: float, atoms: float, kind: str = "vae") -> Result:
    figures = {"pesq_wb": quality, "effective_atoms": atoms}
    values: dict[str, Plain] = {"model.kind": kind, "model.latent": 8}
    return Result(number, values, "finished", 3, -1.0, figures, 1.0)


FAILED = Result(2, {"model.kind": "vsc"}, "failed", cause="the objective is no longer finite")


def test_the_files_and_the_table_tell_every_trial_its_figures_and_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = rank([result(1, 1.25, 5.0), FAILED, result(3, 3.5, 2.5, "[/sdm]:100:")], METRICS)
    findings = Findings(tmp_path, METRICS, trials, "mlflow ui")
    written = write_findings(findings)
    assert [path.name for path in written] == ["results.csv", "results.json", "tradeoff.png"]
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = [(row["number"], row["state"], row["pesq_wb"]) for row in csv.DictReader(file)]
    assert rows == [("3", "finished", "3.5"), ("1", "finished", "1.25"), ("2", "failed", "")]
    listed = json.loads((tmp_path / "results.json").read_text())
    assert listed["metrics"] == METRICS
    assert [trial["unbeaten"] for trial in listed["trials"]] == [True, False, False]
    print_findings(findings)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["3", "[/sdm]:100:,", "8", "latents", "3.50", "2.50", "0:01", "*"]
    assert lines[2].split() == ["1", "vae,", "8", "latents", "1.25", "5", "0:01"]
    assert "trial 2 failed: vsc: the objective is no longer finite" in lines
    assert [str(tmp_path), "ui"] == [line.split()[-1] for line in lines[-2:]]


@settings(max_examples=10)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=10),
    st.sampled_from([("max", "max"), ("max", "min"), ("min", "min")]),
)
def test_the_front_that_is_drawn_is_what_no_other_trial_beats(
    places: list[tuple[int, int]], modes: tuple[Literal["max", "min"], Literal["max", "min"]]
) -> None:
    metrics = dict(zip(("up", "across"), modes, strict=True))
    signs = [1 if mode == "max" else -1 for mode in modes]

    def is_beaten(at: tuple[int, int]) -> bool:
        gains = [
            [s * (o - a) for s, o, a in zip(signs, other, at, strict=True)] for other in places
        ]
        return any(min(gain) >= 0 and max(gain) > 0 for gain in gains)

    best = {n for n, at in enumerate(places) if not is_beaten(at)}
    figures = [dict(zip(metrics, map(float, at), strict=True)) for at in places]
    trials = [Result(n, {}, "finished", figures=each) for n, each in enumerate(figures)]
    axes = draw_front(rank(trials, metrics), metrics).axes[0]
    assert {int(t.get_text()) for t in axes.texts if t.get_fontweight() == "bold"} == best
    assert {text.get_text() for text in axes.texts} == set(map(str, range(len(places))))
    corners = [tuple(map(float, point)) for point in np.asarray(axes.lines[0].get_xydata())]
    assert set(corners) == {(places[n][1], places[n][0]) for n in best}
    assert [signs[0] * up for _, up in corners] == sorted(
        (signs[0] * up for _, up in corners), reverse=True
    )


@pytest.mark.parametrize(
    ("trials", "code"),
    [([result(1, 1, 1), FAILED], 0), ([FAILED], 1), ([], 1), ([Result(1, {}, "stopped")], 130)],
)
def test_the_exit_code_says_how_it_went(trials: list[Result], code: int, tmp_path: Path) -> None:
    assert Findings(tmp_path, METRICS, trials, "").exit_code == code


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ("trials", "stopped; the same command with --resume continues"),
        ("pictures", "all trials have ended, and the same command with --resume draws"),
        ("nothing", "all trials have ended, and nothing is missing"),
    ],
)
def test_a_sweep_that_was_stopped_says_what_is_left(
    left: Left, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for signal in (2, 0):
        print_findings(Findings(tmp_path, METRICS, [], "", signal, left))
        assert (words in capsys.readouterr().out) == bool(signal)
