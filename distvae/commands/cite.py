"""`distvae cite`: print how to cite this package and the papers of its models."""

import re
import unicodedata
from typing import Literal, cast

from distvae.config.recipes import load, recipe_names
from distvae.config.registry import FAMILIES
from distvae.files.checkout import CITATION
from distvae.files.plain import Tree
from distvae.files.refusal import Refusal, nearest
from distvae.files.untrusted import read_yaml

Reference = Tree
"""A work as the Citation File Format describes it."""
Format = Literal["bibtex", "text"]
TYPES = {"conference-paper": "inproceedings", "article": "article", "software": "software"}
FIELDS = {
    "collection-title": "booktitle",
    "journal": "journal",
    "version": "version",
    "doi": "doi",
    "url": "url",
}
"""Fields of BibTeX by those of the Citation File Format."""


def print_citation(name: str | None, form: Format) -> None:
    """Print the citations of this package, of a model or of a recipe."""
    write = _bibtex if form == "bibtex" else _sentence
    print("\n".join(write(work) for work in find_works(name)))


def find_works(name: str | None) -> list[Reference]:
    """Return this package, or the papers of a model or of the model of a recipe."""
    package = cast(Reference, read_yaml(CITATION))
    if name is None:
        return [package]
    papers = package["references"]
    models = {*FAMILIES["model"]}.union(*(work.get("keywords", ()) for work in papers))
    if name not in (*models, *recipe_names()):
        raise Refusal(
            f"{name}: no such model or recipe; {nearest(name, [*models, *recipe_names()])}"
        )
    wanted = {name} if name in models else {name, load(name).model.kind}
    return [work for work in papers if wanted & set(work.get("keywords", ()))]


def _bibtex(work: Reference) -> str:
    """Return a work as an entry of BibTeX."""
    fields = {"title": f"{{{work['title']}}}", "author": " and ".join(_authors(work))}
    fields |= {theirs: str(work[ours]) for ours, theirs in FIELDS.items() if ours in work}
    fields["year"] = _year(work)
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@{TYPES[work['type']]}{{{_key(work)},\n{lines}}}\n"


def _sentence(work: Reference) -> str:
    """Return a work in one line."""
    place = work.get("collection-title") or work.get("journal") or f"version {work['version']}"
    names = [name.strip("{}") for name in _authors(work)]
    where = f" {work['url']}" if "url" in work else ""
    return f"{'; '.join(names)} ({_year(work)}). {work['title']}. {place}.{where}"


def _authors(work: Reference) -> list[str]:
    """Return the authors as BibTeX writes them: the family name first, groups in braces."""
    return [
        f"{{{one['name']}}}" if "name" in one else f"{one['family-names']}, {one['given-names']}"
        for one in work["authors"]
    ]


def _year(work: Reference) -> str:
    return str(work.get("year") or work["date-released"])[:4]


def _key(work: Reference) -> str:
    """Return a name for a work: its first author in ASCII, and the year."""
    first = _authors(work)[0].strip("{}").partition(",")[0]
    plain = unicodedata.normalize("NFKD", first).encode("ascii", "ignore").decode()
    return re.sub(r"\W", "", plain).lower() + _year(work)
