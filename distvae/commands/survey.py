"""What is said of data before anything is trained on it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distvae.data.survey import Survey


def check(path: str, as_json: bool) -> int:
    """Print what a path holds and what is wrong with it; the exit code."""
    from distvae.data.survey import survey

    found = survey(path)
    if as_json:
        print(json.dumps(asdict(found) | {"exit_code": found.exit_code}))
    else:
        print("\n".join(_lines(found)))
    return found.exit_code


def _lines(found: "Survey") -> Iterator[str]:
    yield f"{found.path}: {found.layout}"
    if found.splits:
        columns = list(next(iter(found.splits.values())))
        yield f"{'split':10}" + "".join(f"{column:>12}" for column in columns)
        for split, amount in found.splits.items():
            yield f"{split or 'none':10}" + "".join(
                f"{_number(amount[column]):>12}" for column in columns
            )
    for name, value in found.facts.items():
        yield f"{name + ':':16}{_told(value)}"
    for label, lines in (("wrong", found.wrong), ("unreadable", found.unreadable)):
        yield from (f"{label + ':':16}{line}" for line in lines)
    if not found.unreadable:
        yield f"{'next:':16}{_next(found)}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} ({count:,})" for name, count in value.items())
    return value if isinstance(value, str) else _number(value)


def _next(found: "Survey") -> str:
    from distvae.data.family import family_of_kind

    return family_of_kind(found.kind).next_command(found)
