"""The table of a sweep's page in a real browser: a click on a head sorts it, a second one turns it
round.
"""

from pathlib import Path

import pytest

from distvae import report
from tests.browser import needs_browser, opened
from tests.report import folders as sweeps
from tests.report.test_sweeps import listed, mixed

pytestmark = [pytest.mark.slow, needs_browser]


def test_a_click_on_a_head_sorts_by_that_figure_and_a_second_turns_it_round(folder: Path) -> None:
    sweeps.without_a_ledger(folder, mixed)
    trials = listed(folder)
    worth = {number: trial["figures"].get("squared_error") for number, trial in trials.items()}
    having = sorted(
        (number for number in worth if worth[number] is not None), key=lambda n: -worth[n]
    )
    with opened(report.write(folder).as_uri()) as page:
        table = page.locator("table.sortable").first
        numbers = table.locator("tbody tr td:first-child, tbody tr th:first-child")
        head = table.locator("thead th", has=page.get_by_role("button", name="squared_error"))
        before = head.get_attribute("aria-sort")
        head.get_by_role("button").click()
        if before != "descending":
            assert head.get_attribute("aria-sort") == "descending"
            assert numbers.all_inner_texts()[: len(having)] == having
            head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert numbers.all_inner_texts()[: len(having)] == having[::-1]
        table.get_by_role("button", name="trial").click()
        assert numbers.all_inner_texts() == sorted(trials, key=int)
