"""Several workers train as one does, or say why they cannot."""

import subprocess
from pathlib import Path

import pytest

from distvae.cluster import joined
from distvae.refusal import Refusal
from distvae.train.group import Group
from tests.train.commands import PLAIN, TORCHRUN, command, run, same

SPEECH = ["speech-sdm", "data.path=built-in speech", "model.latent=4", "train.warmup=3", "train.epochs=1"]
BARS = ["bars", "data.rows=200", "train.epochs=4"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [BARS, SPEECH], ids=["populations", "encoder"])
def test_two_workers_equal_one(recipe: list[str], tmp_path: Path) -> None:
    same(run(PLAIN, recipe, tmp_path / "one"), run(TORCHRUN, recipe, tmp_path / "two"))


@pytest.mark.slow
def test_one_worker_of_ray_trains_as_the_plain_process_does(tmp_path: Path) -> None:
    same(run(PLAIN, BARS, tmp_path / "plain"), run(PLAIN, BARS, tmp_path / "ray", "--workers", "1"), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    {
        ("train.batch=33", "--workers", "2"): "33 can be shared by 1 workers at most",
        ("--workers", "32"): "32 workers need 32 CPUs, and Ray has",
    }.items(),
)
def test_what_cannot_be_done_is_said_once_with_exit_code_two(words: list[str], told: str, tmp_path: Path) -> None:
    start = command(PLAIN, BARS, tmp_path / "run", *words)
    done = subprocess.run(start, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with pytest.raises(Refusal, match=r"--address: 127\.0\.0\.1:1: nothing answers there"), joined("127.0.0.1:1", 0):
        pass


@pytest.mark.parametrize("text", ["two", "0:2", "3:1", "1:2:3", "-1", ""])
def test_a_number_of_workers_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="--workers"):
        Group.parse(text)


def test_a_range_of_workers_has_two_ends() -> None:
    assert (Group.parse("3").least, Group.parse("3").most) == (3, 3)
    assert (Group.parse("1:4").least, Group.parse("1:4").most) == (1, 4)
