"""What `--help` prints."""

import typer
from typer.core import TyperCommand, TyperGroup

from distvae.cli import app


def test_help_lists_every_command_in_a_panel_and_breaks_no_sentence() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert len(group.commands) > 20
    for name, command in group.commands.items():
        assert isinstance(command, TyperCommand | TyperGroup)
        assert isinstance(command.rich_help_panel, str), name
        assert command.help, name
        assert "\n" not in command.help, name
