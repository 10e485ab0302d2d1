"""Plain values: what YAML and JSON files hold."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Plain: TypeAlias = "str | int | float | bool | Sequence[Plain] | Mapping[str, Plain] | None"
"""A value that YAML and JSON can write: a scalar, or a list or mapping of such values."""
Tree: TypeAlias = dict[str, Any]
"""An object as it was read from YAML or JSON, whose values are checked where they are used."""
