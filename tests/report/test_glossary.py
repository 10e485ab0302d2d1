"""The glossary names what an evaluation gives, docs/measures.md has an anchor for each entry, and a
report explains each figure that its tables name.
"""

import re
from pathlib import Path

from distvae import report
from distvae.numerics.metrics import GLOSSARY
from distvae.tasks.measures import MEASURES
from distvae.tasks.recording_scores import WAVEFORM
from tests.report import folders as sweeps
from tests.report.reader import Page

PAGE = (Path(__file__).parents[2] / "docs" / "measures.md").read_text()


def test_every_entry_has_one_anchor_on_the_page_before_its_name() -> None:
    assert sorted(re.findall(r'<a id="(\w+)"></a>`\1`', PAGE)) == sorted(GLOSSARY)
    assert PAGE.count("<a id=") == len(GLOSSARY)


def test_every_figure_that_can_be_requested_is_explained() -> None:
    figures = {name for measure in MEASURES.values() for name in measure.figures}
    assert {*figures, *WAVEFORM, "isd"} - {"iw_bound_row_std"} <= GLOSSARY.keys()


def test_every_known_figure_of_a_report_is_defined_on_it(folder: Path) -> None:
    results = sweeps.without_a_ledger(folder)
    page = Page(report.write(folder).read_text())
    known = {name for result in results for name in result.figures} & GLOSSARY.keys()
    assert dict(page.tables[-1]) == {name: GLOSSARY[name] for name in known}
    titles = [head["title"] for head in page.heads if "title" in head]
    assert sorted(filter(None, titles)) == sorted(GLOSSARY[name] for name in known)
