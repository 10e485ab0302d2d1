"""Plain values: the contents of YAML and JSON files."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Plain: TypeAlias = "str | int | float | bool | Sequence[Plain] | Mapping[str, Plain] | None"
"""A value that YAML and JSON can write: a scalar, or a list or mapping of such values."""
Tree: TypeAlias = dict[str, Any]
"""An object read from YAML or JSON, whose values are checked where they are used."""


def finite(value: object) -> object:
    """Return a value with null in place of the numbers that JSON lacks: NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
