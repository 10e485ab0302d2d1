"""Commands that print what can be trained and tuned, which settings there are, and the papers."""

import re
import textwrap
import unicodedata
from typing import Annotated, Literal, cast

import typer

from distvae.cli.options import command, complete_key, complete_recipe
from distvae.config import to_dict
from distvae.config.recipes import load, read_tree, recipe_names, recipe_path
from distvae.config.schema import FAMILIES
from distvae.config.schema import settings as explained_settings
from distvae.files.program import CITATION
from distvae.files.refusal import Refusal, nearest
from distvae.files.untrusted import Tree, read_yaml

app = typer.Typer(rich_help_panel="Recipes, settings and papers")

WIDTH = 100
"""Columns of the text that explains a setting."""
Reference = Tree
"""A work as the Citation File Format describes it."""
Format = Literal["bibtex", "text"]
TYPES = {"conference-paper": "inproceedings", "article": "article", "software": "software"}
"""The kinds of BibTeX entries, by the types of the Citation File Format."""
FIELDS = {
    "collection-title": "booktitle",
    "journal": "journal",
    "version": "version",
    "doi": "doi",
    "url": "url",
}
"""The fields of BibTeX, by the fields of the Citation File Format."""


@command(app)
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Print this recipe and all settings it resolves to.",
            autocompletion=complete_recipe,
        ),
    ] = None,
) -> None:
    """List the recipes, or show one."""
    import yaml

    if name is None:
        for known in recipe_names():
            print(f"{known:18}{read_tree(recipe_path(known)).get('about', '')}")
        return
    resolved = to_dict(load(name))
    print(recipe_path(name).read_text(encoding="utf-8").rstrip())
    print("\n# which resolves to:")
    print(yaml.safe_dump(resolved, sort_keys=False).rstrip())


@command(app)
def settings(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[SECTION|KEY]",
            help="A section, such as model, or a key, such as model.latent; default: all.",
            autocompletion=complete_key,
        ),
    ] = None,
) -> None:
    """Explain the settings: what each means, what it may be, and its default."""
    known = list(explained_settings())
    found = [each for each in known if key in (None, each.key) or each.key.startswith(f"{key}.")]
    if not found:
        names = [*FAMILIES, *dict.fromkeys(each.key for each in known)]
        raise Refusal(f"{key}: no such setting or section; {nearest(str(key), names)}")
    for each in found:
        kinds = f"  ({each.key.partition('.')[0]}: {', '.join(each.kinds)})" if each.kinds else ""
        default = f"; default {each.default}" if each.default else ""
        print(f"{each.key}{kinds}")
        for text in (f"{each.values}{default}", each.meaning):
            print(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))
        print()


@command(app)
def spaces() -> None:
    """List the search spaces that 'distvae tune' knows by name."""
    from distvae.tune.space import space_names

    for name, about in space_names().items():
        print(f"{name:16}{about}")


@command(app)
def cite(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|RECIPE",
            help="Model or recipe whose papers to cite; default: this package.",
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="BibTeX, or a line of text.")] = "bibtex",
) -> None:
    """Print how to cite this package, or the papers behind a model."""
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
