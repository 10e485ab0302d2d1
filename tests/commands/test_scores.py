"""Scores as people and programs read them."""

import json
import math

import pytest

from distvae.commands.evaluate import print_scores

SUMMARY = {
    "pesq_wb": 2.5,
    "pesq_wb_std": math.nan,
    "stoi": 0.75,
    "stoi_std": 0.125,
    "iw_bound": -80.5,
    "iw_bound_row_std": 12.5,
}


def test_programs_read_null_where_there_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(SUMMARY, "json")
    text = capsys.readouterr().out
    assert "NaN" not in text
    assert json.loads(text) == {"summary": SUMMARY | {"pesq_wb_std": None}}


def test_a_figure_is_printed_with_its_spread_and_one_that_is_none_by_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_scores(SUMMARY, "line")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["pesq_wb", "stoi", "iw_bound", "iw_bound_row_std"]
    assert lines[1][2:4] == ["+-", "0.1250"]
