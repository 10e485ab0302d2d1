"""Short names for types of arrays."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

AnyArray: TypeAlias = NDArray[Any]
Floats = NDArray[np.floating]
"""Floating-point arrays of any precision."""
Doubles = NDArray[np.float64]
