"""The glossary names what an evaluation gives, and points to where docs/measures.md defines it."""

import re
from pathlib import Path

from distvae.numerics.glossary import GLOSSARY
from distvae.tasks.measures import MEASURES
from distvae.tasks.recording_scores import WAVEFORM

PAGE = (Path(__file__).parents[2] / "docs" / "measures.md").read_text()


def test_every_entry_is_in_the_section_of_the_page_that_it_names() -> None:
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
    for name, entry in GLOSSARY.items():
        assert f"`{name}`" in sections[entry.section], name


def test_every_figure_that_can_be_requested_is_explained() -> None:
    figures = {name for measure in MEASURES.values() for name in measure.figures}
    assert {*figures, *WAVEFORM, "isd"} - {"iw_bound_row_std"} <= GLOSSARY.keys()
