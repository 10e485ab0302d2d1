"""Errors of trials, told of the axis of the space that causes them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.tasks.measures import refuse_impossible_measures
from distvae.tune.axes import Axis, Choice
from distvae.tune.axis_facts import in_yaml
from distvae.tune.space import Space


def refuse_trial(space: Space, axis: Axis, values: Mapping[str, Plain]) -> None:
    """Refuse a trial, tried for the sake of an axis, that is no valid configuration."""
    try:
        refuse_impossible_measures(space.config(values))
    except Refusal as error:
        raise Refusal(_Trial(space, values, str(error)).explain(axis)) from error


def describe_values(values: Mapping[str, Plain]) -> str:
    """Return settings and their values in words."""
    return ", ".join(f"{key} {value}" for key, value in values.items())


@dataclass(frozen=True)
class _Trial:
    """A trial that is refused, and why."""

    space: Space
    values: Mapping[str, Plain]
    error: str

    def explain(self, tried: Axis) -> str:
        """Return the error with its axis, and with what may be changed about it.

        Without a better one it is the axis for whose sake the trial was tried.
        """
        axes = self.space.active_axes(self.values)
        named = self._named(axes)
        tries = [(axis, self._better(axis, named)) for axis in axes if axis is not named]
        better = [(axis, values) for axis, values in tries if values]
        if named is None and not better and _is_refused(self.space, {}):
            return f"base and fixed: {self.error}"
        owner = named or (better[0][0] if better else tried)
        others = [(axis, values) for axis, values in better if axis is not owner]
        text = f"{owner.path}: {self.error}"
        if others:
            keys = {owner.key, *(axis.key for axis, _ in others)}
            together = {key: value for key, value in self.values.items() if key in keys}
            text += f" (for {describe_values(together)})"
        others.sort(key=lambda other: (other[0].key not in owner.when, not _is_word(other[1])))
        hints = [_hint(owner, axis, values) for axis, values in others]
        return text + next(filter(None, hints), "")

    def _named(self, axes: Sequence[Axis]) -> Axis | None:
        """Return the axis whose key begins the error, or the only one whose section does."""
        found = re.match(r"[\w.]+", self.error)
        name = found[0] if found else ""
        by_key = [axis for axis in axes if axis.key == name]
        by_section = [axis for axis in axes if axis.key.partition(".")[0] == name]
        return by_key[0] if by_key else by_section[0] if len(by_section) == 1 else None

    def _better(self, axis: Axis, named: Axis | None) -> list[Plain]:
        """Return the other values of an axis with which the trial is valid.

        The axis that the error names keeps its value.
        """
        found = []
        for value in axis.span.corners:
            other = _complete(self.space, {**self.values, axis.key: value})
            kept = named is None or other.get(named.key) == self.values[named.key]
            if kept and value != self.values[axis.key] and not _is_refused(self.space, other):
                found.append(value)
        return found


def _complete(space: Space, wanted: Mapping[str, Plain]) -> dict[str, Plain]:
    """Return the values of a trial that has those wanted where they are possible."""
    values: dict[str, Plain] = {}
    for axis in space.axes:
        if axis.applies(space.fixed | values):
            value = wanted.get(axis.key)
            values[axis.key] = value if value in axis.span.corners else axis.span.corners[0]
    return values


def _is_refused(space: Space, values: Mapping[str, Plain]) -> bool:
    try:
        refuse_impossible_measures(space.config(values))
    except Refusal:
        return True
    return False


def _is_word(values: Sequence[Plain]) -> bool:
    return isinstance(values[0], str)


def _hint(axis: Axis, other: Axis, values: Sequence[Plain]) -> str:
    """Return a condition under which an axis is valid; '' if the other axis is an interval."""
    if not isinstance(other.span, Choice):
        return ""
    condition = in_yaml({other.key: values[0] if len(values) == 1 else list(values)})
    below = f", below that of {other.key}," if other.place > axis.place else ""
    return f"; when: {condition} on this axis{below} expected"
