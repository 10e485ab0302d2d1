"""Time single calls."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TypeVar

T = TypeVar("T")
Clock = Callable[[], float]


def timed_call(
    function: Callable[..., T], *arguments: object, clock: Clock = time.perf_counter
) -> tuple[T, float]:
    """Call a function, and return its result and how many seconds it took."""
    start = clock()
    result = function(*arguments)
    return result, clock() - start


def time_call(
    function: Callable[..., object], *arguments: object, clock: Clock = time.perf_counter
) -> float:
    """Call a function, and return how many seconds it took."""
    return timed_call(function, *arguments, clock=clock)[1]


def spread(values: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, float]]:
    """Yield the median of each list under its name, and its minimum and maximum."""
    for name, numbers in values.items():
        yield name, median(numbers)
        yield f"{name}_min", min(numbers)
        yield f"{name}_max", max(numbers)
