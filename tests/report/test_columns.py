"""The columns of a sweep's table in a real browser: those that fit at first, then those chosen."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distvae import report
from tests.browser import needs_browser, opened
from tests.report import folders as sweeps

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, needs_browser]
NAMED = ["squared_error", "hoyer", "model.kind", "model.latent", "model.alpha"]
"""The ranked figures and the settings that vary."""


def shown(page: "Page") -> list[str]:
    """The names of the columns that can be seen, from left to right."""
    return page.locator("table.sortable thead th:visible button").all_inner_texts()


def is_cut_off(page: "Page") -> bool:
    table = page.locator(".wide:has(table.sortable)")
    return bool(table.evaluate("wide => wide.scrollWidth > wide.clientWidth + 1"))


def test_columns_that_do_not_fit_are_hidden_until_the_reader_chooses(folder: Path) -> None:
    sweeps.without_a_ledger(folder)
    with opened(report.write(folder).as_uri()) as page:
        every = page.locator("table.sortable thead button").all_text_contents()
        assert [name for name in shown(page) if name in NAMED] == NAMED
        page.set_viewport_size({"width": 900, "height": 1000})
        page.wait_for_timeout(100)
        assert not is_cut_off(page)
        assert 6 < len(shown(page)) < len(every)
        page.set_viewport_size({"width": 400, "height": 1000})
        page.wait_for_timeout(100)
        assert [name for name in shown(page) if name in NAMED] == NAMED
        assert "time" not in shown(page)

        page.locator(".columns summary").focus()
        page.keyboard.press("Enter")
        page.get_by_label("time", exact=True).focus()
        page.keyboard.press("Space")
        page.get_by_label("hoyer", exact=True).uncheck()
        chosen = shown(page)
        assert "time" in chosen
        assert "hoyer" not in chosen
        page.locator("table.sortable").get_by_role("button", name="trial").click()
        assert shown(page) == chosen
        cells = page.locator("table.sortable tbody tr").first.locator("th:visible, td:visible")
        assert cells.count() == len(chosen)
        page.emulate_media(media="print")
        assert shown(page) == chosen
        page.emulate_media(media="screen")
        page.reload()
        assert shown(page) == chosen

        page.locator(".columns summary").click()
        page.get_by_role("button", name="Show all").click()
        assert shown(page) == every
        page.get_by_role("button", name="Show those that fit").click()
        assert "time" not in shown(page)


def test_the_explanation_of_a_figure_is_a_click_away(folder: Path) -> None:
    sweeps.without_a_ledger(folder)
    with opened(report.write(folder).as_uri()) as page:
        page.locator("table.sortable").get_by_role("link", name="What hoyer is").click()
        entry = page.locator("tr:target")
        assert "docs/measures.md#hoyer)" in entry.inner_text()
        top = page.evaluate("document.querySelector('tr:target').getBoundingClientRect().top")
        assert 0 <= top < 1000
