"""Steps of several trainings in one process, taken together."""

from collections.abc import Sequence

from distvae.engines.protocols import Stack, Stackable
from distvae.interface import Engine
from distvae.train.step import Step


def can_stack(step: Step) -> bool:
    """Return whether the gradients of a training can be computed together with those of others."""
    return isinstance(step.ascent.engine, Stackable)


class Together:
    """Takes steps of trainings; which ones take part may change from step to step."""

    def __init__(self) -> None:
        self.engines: list[Engine | None] = []
        self.stack: Stack | None = None

    def take(self, steps: Sequence[Step]) -> None:
        """Take one step of each training."""
        stack = self._stack([step.ascent.engine for step in steps])
        if stack is None:
            for step in steps:
                step.take()
            return
        for step in steps:
            step.ascent.adam.forget()
        found = stack.differentiate([step.request for step in steps])
        for step, sums in zip(steps, found, strict=True):
            step.ascent.move()
            step.sums = sums

    def _stack(self, engines: list[Engine | None]) -> Stack | None:
        """Return the engines as one; None if there is one alone, or if they differ."""
        if engines != self.engines:
            self.engines, self.stack = engines, stack_engines(engines)
        return self.stack


def stack_engines(engines: Sequence[Engine | None]) -> Stack | None:
    """Return engines as one; None if there is one alone, or if they differ."""
    first, *others = engines
    known = [engine for engine in others if engine is not None]
    if not known or len(known) < len(others) or not isinstance(first, Stackable):
        return None
    return first.stack(known)
