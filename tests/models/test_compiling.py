"""Messages to users about compiled loops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAID = "compiling loops for this processor"
PROGRAM = """
import numpy as np
from distvae.models.kernels import dense
words = np.array([[5]])
table = np.empty((1, 3))
dense(words, table)
print(table.tolist())
"""


@pytest.mark.slow
def test_the_first_process_that_compiles_says_so_once(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for told in (1, 0):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
        )
        assert done.stdout == "[[1.0, 0.0, 1.0]]\n"
        assert done.stderr.count(SAID) == told
