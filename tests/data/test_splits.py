import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.data import folders as splits
from distvae.data.speech import recordings
from distvae.files.refusal import Refusal

SHARES = {"val": 0.15, "test": 0.15}
names = st.sets(st.text(min_size=1, max_size=8), min_size=3, max_size=40)


@given(speakers=names, seed=st.integers(0, 2**40))
def test_every_speaker_is_drawn_once_and_no_split_is_empty(speakers: set[str], seed: int) -> None:
    drawn = recordings.draw_missing_splits(dict.fromkeys(speakers, "train"), SHARES, seed)
    assert drawn.keys() == speakers
    assert set(drawn.values()) == set(splits.SPLITS)


@given(speakers=names, seed=st.integers(0, 2**40), data=st.data())
def test_the_draw_depends_on_names_and_seed_alone(
    speakers: set[str], seed: int, data: st.DataObject
) -> None:
    one, other = sorted(speakers), data.draw(st.permutations(sorted(speakers)))
    drawn = [
        recordings.draw_missing_splits(dict.fromkeys(order, "train"), SHARES, seed)
        for order in (one, other)
    ]
    assert drawn[0] == drawn[1]


def test_seeds_draw_different_speakers() -> None:
    speakers = dict.fromkeys("abcdefghijkl", "train")
    assert len({str(recordings.draw_missing_splits(speakers, SHARES, seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize(
    ("speakers", "val", "test"), [(12, 2, 2), (100, 15, 15), (3, 1, 1), (56, 8, 8)]
)
def test_shares_are_of_the_speakers_rounded(speakers: int, val: int, test: int) -> None:
    drawn = list(
        recordings.draw_missing_splits(
            dict.fromkeys(map(str, range(speakers)), "train"), SHARES, 0
        ).values()
    )
    assert (drawn.count("val"), drawn.count("test")) == (val, test)


def test_only_a_missing_split_is_filled_and_only_from_training() -> None:
    assignment = dict.fromkeys("abcdefgh", "train") | {"x": "test", "y": "test"}
    filled = recordings.draw_missing_splits(assignment, SHARES, 0)
    assert {s for s in filled if filled[s] == "test"} == {"x", "y"}
    assert [filled[s] for s in "abcdefgh"].count("val") == 1


def test_a_whole_assignment_is_left_alone() -> None:
    assignment = {"a": "train", "b": "val", "c": "test"}
    assert recordings.draw_missing_splits(assignment, SHARES, 0) == assignment


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ({"ann": "train"}, "one speaker, 'ann',.*3 or more"),
        ({"ann": "train", "bob": "train"}, "2 speakers .*3 or more"),
        ({"ann": "train", "bob": "test"}, "one speaker, 'ann',.*draw 1 for val.*2 or more"),
        ({"ann": "val", "bob": "test"}, "no speakers to train on; 1 or more"),
    ],
)
def test_too_few_speakers_are_refused(assignment: dict[str, str], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        recordings.draw_missing_splits(assignment, SHARES, 0)


def test_large_shares_leave_somebody_to_train_on() -> None:
    speakers = dict.fromkeys("abc", "train")
    with pytest.raises(Refusal, match=r"2 for val and 1 for test .*4 or more"):
        recordings.draw_missing_splits(speakers, {"val": 0.6, "test": 0.3}, 0)


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("TRAIN", "train"),
        ("dev-clean", "val"),
        ("Valid", "val"),
        ("validation", "val"),
        ("test_other", "test"),
    ],
)
def test_usual_names_of_splits_are_known(word: str, split: str) -> None:
    assert splits.split_of_word(word) == split


@pytest.mark.parametrize("word", ["training", "103", "development", "testing", ""])
def test_other_words_name_no_split(word: str) -> None:
    assert splits.split_of_word(word) is None
