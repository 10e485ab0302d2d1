"""`distvae data check`: print what data was recognised, and what is wrong with it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from distvae.files.refusal import Refusal

if TYPE_CHECKING:
    from distvae.data.survey import Survey
    from distvae.files.plain import Plain


def check_data(path: str, settings: list[str], as_json: bool) -> int:
    """Print what a path contains and what is wrong with it under some settings of the data; return
    the exit code.
    """
    from distvae.config.recipes import parse_assignments
    from distvae.data.check import examine

    for key in parse_assignments(settings):
        if not key.startswith("data.") or key in ("data.kind", "data.path"):
            raise Refusal(f"{key}: settings of the data besides its kind and path expected here")
    found = examine(path, settings)
    if as_json:
        print(json.dumps(asdict(found) | {"exit_code": found.exit_code}))
    else:
        print("\n".join(_lines(found)))
    return found.exit_code


def _lines(found: "Survey") -> Iterator[str]:
    from distvae.data.family import next_command

    yield f"{found.path}: {found.layout}"
    if found.splits:
        columns = list(next(iter(found.splits.values())))
        yield f"{'split':10}" + "".join(f"{column:>12}" for column in columns)
        for split, amount in found.splits.items():
            cells = [f"{_format_number(amount[column]):>12}" for column in columns]
            yield f"{split or 'none':10}" + "".join(cells)
    for name, value in found.facts.items():
        yield f"{name + ':':16}{_format_fact(value)}"
    for label, lines in (("wrong", found.wrong), ("unreadable", found.unreadable)):
        yield from (f"{label + ':':16}{line}" for line in lines)
    if not found.unreadable:
        yield f"{'next:':16}{next_command(found)}"


def _format_number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _format_fact(value: "Plain") -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} ({count:,})" for name, count in value.items())
    if isinstance(value, str):
        return value
    assert isinstance(value, int | float)
    return _format_number(value)
