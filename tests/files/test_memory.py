"""Numbers of bytes in words."""

import pytest

from distvae.files.memory import gigabytes


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0.0 kB"), (1500, "1.5 kB"), (2e6, "2.0 MB"), (9e8, "900.0 MB"), (12e9, "12.0 GB")],
)
def test_few_bytes_are_not_called_none(count: float, words: str) -> None:
    assert gigabytes(int(count)) == words
