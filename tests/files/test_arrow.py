"""Columns of Arrow tables are what pyarrow itself makes of the same arrays."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from distvae.files.storage import rows_column
from tests.laws.test_imports import in_a_new_process


@pytest.mark.parametrize("kind", [np.int64, np.float32])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_column_is_what_pyarrow_makes(rows: int, kind: type) -> None:
    values: NDArray[np.number] = np.arange(6 * rows).reshape(rows, 6).astype(kind)[:, ::2]
    values[values == 2] = -1
    if kind is np.float32:
        values[values == 4] = np.nan
    expected = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 3)
    found = rows_column(values, 3)
    found.validate(full=True)
    assert found.type == expected.type
    assert found.null_count == expected.null_count == 0
    np.testing.assert_array_equal(found.flatten().to_numpy(), expected.flatten().to_numpy())


@pytest.mark.slow
def test_it_imports_no_pandas() -> None:
    code = "import sys, numpy; from distvae.files.storage import rows_column; "
    code += "rows_column(numpy.zeros((2, 3)), 3); print('pandas' in sys.modules)"
    assert in_a_new_process(code) == "False\n"
