"""Numbers as a person reads them: as many digits as tell runs apart, and no more."""

import math
from typing import Any


def places(value: float) -> int:
    """How many decimals a figure is told to."""
    return max(1, 3 - math.floor(math.log10(abs(value)))) if value else 4


def shown(value: float) -> str:
    """A figure: whole numbers whole, the rest to four digits or one decimal, tiny and huge ones in
    powers of ten.
    """
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.{places(value)}f}" if 1e-3 <= abs(value) < 1e9 else f"{value:.4g}"


def with_spread(mean: float, spread: float | None) -> str:
    """A mean and its standard deviation, told to the same decimals, or to more where it would
    vanish.
    """
    if spread is None:
        return shown(mean)
    told = f"{spread:.{places(mean)}f}"
    return (
        f"{shown(mean)} \N{PLUS-MINUS SIGN}"
        f" {told if float(told) or not spread else f'{spread:.1g}'}"
    )


def setting(value: Any) -> str:
    """A value of the configuration."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return (
        "-"
        if value is None
        else ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )


def listed(words: list[str]) -> str:
    """One, two and three."""
    return (
        words[0]
        if len(words) == 1
        else f"{', '.join(words[:-1])} and {words[-1]}"
        if words
        else "none"
    )


def counted(count: int, what: str) -> str:
    """One trial, two trials."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")
