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


@pytest.mark.parametrize("name", [*FAMILIES["model"], "bsc", "house-50"])
def test_models_and_recipes_have_papers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cite(name)
    printed = capsys.readouterr().out
    assert printed.count("{") == printed.count("}")
    found = entries(printed)
    assert 0 < len(found) == printed.count("@")
    assert len({entry["key"] for entry in found}) == len(found)
    for entry in found:
        paper = PAPERS[entry["title"].strip("{}")]
        families = [author["family-names"] for author in paper["authors"]]
        assert [author.partition(",")[0] for author in entry["author"].split(" and ")] == families
        assert (entry["year"], entry["url"]) == (str(paper["year"]), paper["url"])
        assert paper.get("journal") or paper["collection-title"] in entry["booktitle"]


def test_every_reference_is_of_a_model_and_every_recipe_has_one() -> None:
    for paper in PAPERS.values():
        assert set(paper["keywords"]) <= {*FAMILIES["model"], *recipe_names(), "bsc"}
    assert all(find_works(recipe) for recipe in recipe_names())
    assert find_works("bsc") == find_works("tvae")  # the linear case
    with pytest.raises(Refusal, match="no such model or recipe"):
        find_works("tvea")


def test_this_package_is_cited_with_its_version(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cite(None)
    (entry,) = entries(capsys.readouterr().out)
    assert (entry["kind"], entry["version"]) == ("software", FILE["version"])
    assert entry["author"] == "{distvae contributors}"
    assert entry["year"] == str(FILE["date-released"].year)
