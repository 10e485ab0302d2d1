"""Lists of the gaps of a sound: which samples they mark."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.data.windows.missing import read_gaps
from distvae.files.refusal import Refusal

RATE, SAMPLES = 16000, 800
PLACE = st.integers(0, SAMPLES)


def written(folder: Path, text: str) -> Path:
    (folder / "gaps.txt").write_text(text)
    return folder / "gaps.txt"


@given(
    rate=st.sampled_from([RATE, 11025, 44100]),
    ends=st.lists(st.tuples(PLACE, PLACE).filter(lambda each: each[0] < each[1]), max_size=4),
)
def test_gaps_between_samples_are_marked_exactly(
    tmp_path_factory: pytest.TempPathFactory, rate: int, ends: list[tuple[int, int]]
) -> None:
    expected = np.zeros(SAMPLES, bool)
    for first, last in ends:
        expected[first:last] = True
    lines = "".join(f"{first / rate}\t{last / rate}\tgap\n" for first, last in ends)
    path = written(tmp_path_factory.mktemp("gaps"), lines)
    np.testing.assert_array_equal(read_gaps(path, rate, SAMPLES), expected)


def test_a_sample_of_which_a_part_is_in_a_gap_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path, f"{10.4 / RATE} {12.1 / RATE}\n{799.5 / RATE} 2.0")
    assert np.flatnonzero(read_gaps(path, RATE, SAMPLES)).tolist() == [10, 11, 12, 799]


def test_labels_comments_and_frequencies_of_audacity_are_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeff# clicks\n\n0.001\t0.002\ta click\n\\\t2000.0\t3000.0\n")
    assert np.flatnonzero(read_gaps(path, RATE, SAMPLES)).tolist() == list(range(16, 32))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0.1,0.2", r"line 1: '0.1,0.2'; the start and the end of a gap in seconds"),
        ("0.1", r"line 1: '0.1'; the start"),
        ("0.02 0.01", r"line 1: from 0.02 to 0.01; the start"),
        ("-1 0.01", r"line 1: from -1 to 0.01"),
        ("nan 0.01", r"line 1: from nan to 0.01"),
        ("0 inf", r"line 1: from 0 to inf"),
        ("0 1e308", r"line 1: from 0 to 1e\+308"),
        ("1e308 1.1e308", r"line 1: from 1e\+308 to 1.1e\+308"),
        ("0.05 0.06", r"line 1: a gap from 0.05 s on in a sound of 0.05 s"),
    ],
)
def test_a_line_without_a_gap_of_the_sound_is_refused(
    tmp_path: Path, line: str, words: str
) -> None:
    with pytest.raises(Refusal, match=rf"gaps.txt, {words}"):
        read_gaps(written(tmp_path, line), RATE, SAMPLES)
