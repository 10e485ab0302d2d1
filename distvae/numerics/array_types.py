"""Short names for arrays of floating-point numbers."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
"""Of any precision."""
Doubles = NDArray[np.float64]
