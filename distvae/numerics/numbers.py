"""Format numbers for people, with just enough digits to tell runs apart."""

import math


def decimals(value: float) -> int:
    """Return the number of decimals to print."""
    if value == 0:
        return 4
    return max(1, 3 - math.floor(math.log10(abs(value))))


def shown(value: float) -> str:
    """Format a number: integers without decimals, fractions with four digits or one decimal.

    Very small and very large values are written as powers of ten.
    """
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e9:
        return f"{value + 0.0:.0f}"  # turns minus zero into zero
    if 1e-3 <= abs(value) < 1e9:
        return f"{value:.{decimals(value)}f}"
    return f"{value:.4g}"


def in_column(value: float) -> str:
    """Format a number for a table column: three decimals, or three digits if it is below 0.1."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.1 else f"{value:.3g}"


def with_spread(mean: float, spread: float | None) -> str:
    """Format a mean and its standard deviation with the same decimals.

    A standard deviation that would round to zero gets one significant digit.
    """
    if spread is None:
        return shown(mean)
    rounded = f"{spread:.{decimals(mean)}f}"
    if spread and not float(rounded):
        rounded = f"{spread:.1g}"
    return f"{shown(mean)} \N{PLUS-MINUS SIGN} {rounded}"


def setting(value: object) -> str:
    """Format the value of a setting."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def listed(words: list[str]) -> str:
    """Join words as in `one, two and three`."""
    if not words:
        return "none"
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} and {words[-1]}"


def counted(count: int, noun: str) -> str:
    """Format a count as in `1 trial` and `2 trials`."""
    plural = "" if count == 1 else "s"
    return f"{count:,} {noun}{plural}"


def capitalise(text: str) -> str:
    """Capitalise the first letter."""
    return text[0].upper() + text[1:]
