"""Citations have what CITATION.cff says, for every model and recipe."""

import re
from pathlib import Path

import pytest
import yaml

from distvae.cli.reference import cite, find_works
from distvae.config.recipes import recipe_names
from distvae.config.schema import FAMILIES
from distvae.files.refusal import Refusal

FILE = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text())
PAPERS = {work["title"]: work for work in FILE["references"]}


def entries(text: str) -> list[dict[str, str]]:
    """The fields of entries of BibTeX, read with as little as tells them apart."""
    found = []
    for kind, key, body in re.findall(r"@(\w+)\{(\w+),\n(.*?)\n\}", text, re.DOTALL):
        fields = re.findall(r"^  (\w+) = \{(.*)\},$", body, re.MULTILINE)
        found.append({"kind": kind, "key": key, **dict(fields)})
    return found


def test_a_bsc_is_cited_with_the_paper_of_which_it_is_the_linear_case() -> None:
    assert find_works("bsc") == find_works("tvae") != []


@pytest.mark.parametrize("name", [*FAMILIES["model"], *recipe_names()])
def test_every_model_and_recipe_has_papers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cite(name, "bibtex")
    printed = capsys.readouterr().out
    found = entries(printed)
    assert found
    assert len(found) == printed.count("@")
    assert len({entry["key"] for entry in found}) == len(found)
    for entry in found:
        paper = PAPERS[entry["title"].strip("{}")]
        families = [author["family-names"] for author in paper["authors"]]
        assert [author.partition(",")[0] for author in entry["author"].split(" and ")] == families
        assert (entry["year"], entry["url"]) == (str(paper["year"]), paper["url"])
        assert paper.get("journal") or paper["collection-title"] in entry["booktitle"]


def test_braces_are_balanced(capsys: pytest.CaptureFixture[str]) -> None:
    for name in (None, *FAMILIES["model"]):
        cite(name, "bibtex")
    depth = 0
    for sign in capsys.readouterr().out:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0


def test_this_package_is_cited_with_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    cite(None, "bibtex")
    (entry,) = entries(capsys.readouterr().out)
    assert (entry["kind"], entry["version"]) == ("software", FILE["version"])
    assert entry["author"] == "{distvae contributors}"
    assert entry["year"] == str(FILE["date-released"].year)


def test_a_line_of_text_names_authors_year_title_and_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cite("sdm", "text")
    assert capsys.readouterr().out == (
        "Sadeghi, Mostafa; Magron, Paul (2022). A Sparsity-promoting Dictionary Model for"
        " Variational Autoencoders. Interspeech. https://arxiv.org/abs/2203.15758\n"
    )


def test_every_reference_is_of_a_model_that_there_is() -> None:
    for paper in PAPERS.values():
        assert set(paper["keywords"]) <= {*FAMILIES["model"], *recipe_names(), "bsc"}


def test_a_name_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Refusal, match="no such model or recipe"):
        find_works("tvea")
