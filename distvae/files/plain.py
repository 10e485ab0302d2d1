"""Plain values: what YAML and JSON files hold."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Plain: TypeAlias = "str | int | float | bool | Sequence[Plain] | Mapping[str, Plain] | None"
"""A value that YAML and JSON can write: a scalar, or a list or mapping of such values."""
