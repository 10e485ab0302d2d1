"""A figure whose name ends like that of a spread is told like any other."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from distvae import report
from distvae.tune.results import Result
from tests.report import folders as sweeps
from tests.report.reader import Page, alike, trials


def test_it_has_a_row_on_the_page_of_a_run(tmp_path: Path) -> None:
    sweeps.trained(tmp_path / "run")
    sweeps.put_evaluation(tmp_path / "run", "test")
    figures = {"iw_bound": -80.5, "iw_bound_row_std": 12.5, "hoyer": 0.25, "hoyer_std": 0.01}
    (tmp_path / "run" / "evaluation" / "test" / "summary.json").write_text(json.dumps(figures))
    shown = alike(Page(report.write(tmp_path / "run").read_text()).tables)
    assert shown["iw_bound_row_std"] == "12.50"
    assert "hoyer_std" not in shown


def test_it_has_a_column_on_the_page_of_a_sweep(folder: Path) -> None:
    def judge(number: int, values: dict[str, Any]) -> Result:
        result = sweeps.judged(number, values)
        own = {"hoyer_std": 0.01, "iw_bound_row_std": 10.5 + number}
        return replace(result, figures=result.figures | own)

    sweeps.without_a_ledger(folder, judge)
    for row in trials(Page(report.write(folder).read_text()).tables):
        assert float(row["iw_bound_row_std"]) == 10.5 + int(row["trial"])
        assert "hoyer_std" not in row
