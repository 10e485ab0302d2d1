"""Commands that print what can be trained and tuned, which settings there are, and the papers."""

import json
import re
import textwrap
import unicodedata
from collections.abc import Mapping
from typing import Annotated, cast

import typer

from distvae.cli.options import command, complete_key, complete_recipe
from distvae.config import flatten, to_dict
from distvae.config.recipes import load, read_tree, recipe_names, recipe_path
from distvae.config.schema import FAMILIES, Setting
from distvae.config.schema import settings as explained_settings
from distvae.files.program import CITATION
from distvae.files.refusal import Refusal, nearest
from distvae.files.untrusted import Plain, Tree, read_yaml

app = typer.Typer(rich_help_panel="Recipes, settings and papers")

START = ("table", "images", "speech")
"""The recipes to start with, for data of one's own."""
PARTS = ("picture-", "sound-", "gaps-", "colour-")
"""The beginnings of recipes that restore one file."""
MAIN = (
    *("train.epochs", "train.batch", "model.latent", "model.active", "model.limit", "data.size"),
    *("model.dictionary", "model.atoms", "model.alpha", "estep.states", "model.likelihood"),
    *("model.hidden", "model.beta", "train.rate", "train.patience", "train.seed", "train.device"),
    *("train.threads", "eval.latent", "eval.metrics"),
)
"""The main settings, the most important first."""
SHOWN = 12
"""Main settings that are explained at most."""
WIDTH = 100
"""Columns of the text that explains a setting."""
Reference = Tree
"""A work as the Citation File Format describes it."""
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


@command(app, "recipes speech")
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Print this recipe and all settings it resolves to.",
            autocompletion=complete_recipe,
        ),
    ] = None,
) -> None:
    """List the recipes for 'distvae train' and the search spaces for 'distvae tune', or show a
    recipe.
    """
    import yaml

    from distvae.tune.space import space_names

    if name is None:
        about = {each: read_tree(recipe_path(each)).get("about", "") for each in recipe_names()}
        parts = [each for each in about if each.startswith(PARTS)]
        papers = [each for each in about if each not in (*START, *parts)]
        groups = {
            "start here: distvae train NAME": START,
            "papers and comparisons: distvae train NAME": papers,
            "one picture or sound: distvae denoise or inpaint --recipe NAME": parts,
        }
        for title, names in groups.items():
            print(title)
            for each in names:
                print(f"  {each:18}{about[each]}")
            print()
        print("search spaces: distvae tune NAME")
        for each, what in space_names().items():
            print(f"  {each:18}{what}")
        return
    resolved = to_dict(load(name))
    print(recipe_path(name).read_text(encoding="utf-8").rstrip())
    print("\n# which resolves to:")
    print(yaml.safe_dump(resolved, sort_keys=False).rstrip())


@command(app, "settings speech")
def settings(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE|SECTION|KEY]",
            help="A recipe, a section such as model, or a key such as model.latent.",
            autocompletion=complete_key,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Explain all settings, not only the twelve main ones.")
    ] = False,
) -> None:
    """Explain the settings: what each means, what it may be, its default, and its value in a
    recipe.
    """
    known, values = list(explained_settings()), dict[str, Plain]()
    is_part = key in FAMILIES or any(each.key == key for each in known)
    if is_part:
        found = [each for each in known if each.key == key or each.key.startswith(f"{key}.")]
    elif key is None:
        found = known
    else:
        try:
            recipe_path(key)
        except Refusal as error:
            keys = dict.fromkeys(each.key for each in known)
            names = [*keys] if "." in key else [*recipe_names(), *FAMILIES]
            raise Refusal(
                f"{key}: no such recipe, section or setting; {nearest(key, names)}"
            ) from error
        values = flatten(load(key))
        found = [each for each in known if each.key in values and _is_of(each, values)]
    shown = found
    if not is_part and not everything:
        main = [each for name in MAIN for each in found if each.key == name]
        shown = main[:SHOWN]
    for each in shown:
        kinds = f"  ({each.key.partition('.')[0]}: {', '.join(each.kinds)})" if each.kinds else ""
        now = f"={_as_word(values[each.key])}" if each.key in values else kinds
        default = f"; default {each.default}" if each.default else ""
        print(f"{each.key}{now}")
        for text in (f"{each.values}{default}", each.meaning):
            print(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))
        print()
    if len(shown) < len(found):
        words = " ".join(["distvae settings", *([key] if key else []), "--all"])
        print(f"{len(found) - len(shown)} more: {words}")


def _as_word(value: Plain) -> str:
    """Return the value of a setting as it is given on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _is_of(setting: Setting, values: Mapping[str, Plain]) -> bool:
    """Return whether a setting is explained for the kind that a configuration has."""
    section = setting.key.partition(".")[0]
    return not setting.kinds or values[f"{section}.kind"] in setting.kinds


@command(app, "cite tvae")
def cite(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|RECIPE",
            help="Model or recipe whose papers to cite; default: this package.",
        ),
    ] = None,
) -> None:
    """Print how to cite this package, or the papers behind a model, as BibTeX."""
    print("\n".join(_bibtex(work) for work in find_works(name)))


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
