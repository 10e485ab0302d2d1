"""Commands that print what can be trained and tuned, and with which settings."""

from typing import Annotated

import typer

from distvae.cli.command import command
from distvae.commands.cite import Format, print_citation
from distvae.commands.completion import complete_citable, complete_key, complete_recipe
from distvae.commands.recipes import print_recipes, print_spaces
from distvae.commands.settings import print_settings

app = typer.Typer(rich_help_panel="Recipes, settings and papers")


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
    print_recipes(name)


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
    print_settings(key)


@command(app)
def spaces() -> None:
    """List the search spaces that 'distvae tune' knows by name."""
    print_spaces()


@command(app)
def cite(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|RECIPE",
            help="Model or recipe whose papers to cite; default: this package.",
            autocompletion=complete_citable,
        ),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="BibTeX, or a line of text.")] = "bibtex",
) -> None:
    """Print how to cite this package, or the papers behind a model."""
    print_citation(name, form)
