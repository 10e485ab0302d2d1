"""The axes of a space as `sweep.json` records them, and in the words of a space file."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypedDict

from distvae.files.plain import Plain
from distvae.files.refusal import VALUE, shortened

ROOM = 240
"""Characters that the changes named in a message may take."""


class SpanFacts(TypedDict, total=False):
    """The values of an axis: those of a choice, or the ends of an interval."""

    values: Sequence[Plain]
    low: float
    high: float
    log: bool


class AxisFacts(TypedDict):
    """An axis of the space, as sweep.json records it."""

    key: str
    span: SpanFacts
    when: Mapping[str, Sequence[Plain]]


def as_written(axis: AxisFacts) -> dict[str, Plain]:
    """Return an axis as a space file writes it."""
    span = axis["span"]
    entry: dict[str, Plain] = {"key": axis["key"]}
    if "values" in span:
        entry["choice"] = span["values"]
    else:
        kind = "int" if isinstance(span["low"], int) else "float"
        entry[kind] = [span["low"], span["high"]]
        if span["log"]:
            entry["log"] = True
    if axis["when"]:
        entry["when"] = axis["when"]
    return entry


def describe_changes(before: Sequence[AxisFacts], now: Sequence[AxisFacts]) -> str:
    """Say how the axes of a space differ from those before; '' if they do not."""
    changes = list(_changes(_by_name(before), _by_name(now)))
    ends = accumulate(len(change) for change in changes)
    named = max(1, sum(end <= ROOM for end in ends))
    more = [f"and {len(changes) - named} more"] if len(changes) > named else []
    return "; ".join([*changes[:named], *more])


def in_yaml(value: Plain) -> str:
    """Return a value as YAML on one line, short whatever it contains."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return shortened(text.partition("\n")[0], 2 * VALUE)


def _by_name(axes: Sequence[AxisFacts]) -> dict[str, AxisFacts]:
    """Return axes by their keys, which are numbered where several axes share one."""
    named: dict[str, AxisFacts] = {}
    keys = [axis["key"] for axis in axes]
    for place, axis in enumerate(axes):
        repeated = keys[:place].count(axis["key"])
        named[f"{axis['key']}#{repeated + 1}" if repeated else axis["key"]] = axis
    return named


def _changes(before: Mapping[str, AxisFacts], now: Mapping[str, AxisFacts]) -> Iterator[str]:
    """Yield what is missing, what is new, what differs, and a change of the order."""
    yield from (f"axis {name} is missing" for name in before if name not in now)
    yield from (f"axis {name} was not in it" for name in now if name not in before)
    both = [name for name in before if name in now]
    for name in both:
        yield from _changed_fields(name, as_written(before[name]), as_written(now[name]))
    order = [name for name in now if name in before]
    if both != order:
        yield f"axes in the order {', '.join(both)} before, {', '.join(order)} now"


def _changed_fields(
    name: str, before: Mapping[str, Plain], now: Mapping[str, Plain]
) -> Iterator[str]:
    for field in dict.fromkeys([*before, *now]):
        if before.get(field) != now.get(field):
            old, new = (in_yaml(axis[field]) if field in axis else "none" for axis in (before, now))
            yield f"{name}: {field} {old} before, {new} now"
