"""Killed at any step, or failed by the disk there, a command that is repeated with --resume ends
as if nothing had happened.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.commands import bits
from tests.train.faults import LOG, STEPS, serving

SMALL = ["train.epochs=2", "train.threads=1", "train.device=cpu", "--quiet"]
TRAIN = ["train", "bars", "data.rows=64", "train.batch=16", "--no-track", "--no-evaluate"]
NET = ["data.window=[4,4]", "model.latent=8", "model.hidden=[16]", "estep.states=16"]
DENOISE = ["denoise", "picture.png", "out.png", "estep.children=4", "train.batch=32"]
COMMANDS = {
    "train": [*TRAIN, *SMALL, "--out", "run"],
    "denoise": [*DENOISE, *NET, *SMALL],
    "denoise into a run": [*DENOISE, *NET, *SMALL, "--run", "run"],
    "inpaint": ["inpaint", *DENOISE[1:], "--drop", "0.1", *NET, *SMALL],
}
FAULTS = (errno.EIO, errno.ESTALE, errno.EMFILE)


def result(folder: Path) -> list[object]:
    """Return the bits of a command's results, and the files that it left."""
    run, picture = folder / "run", folder / "out.png"
    made: list[object] = [*bits(run)] if run.exists() else []
    made += [picture.read_bytes()] if picture.exists() else []
    left = {path.name.partition("-")[0] for path in folder.rglob("*") if path.is_file()}
    return [made, sorted(left - {LOG, STEPS})]


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Return a function that makes a new folder with a picture."""
    rows = np.random.default_rng(0).integers(0, 255, (12, 14))
    count = iter(range(10**6))

    def make() -> Path:
        folder = tmp_path / f"{next(count)}"
        folder.mkdir()
        Image.fromarray(rows.astype(np.uint8)).save(folder / "picture.png")
        return folder

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "then", "every"),
    [
        ("train", "--resume", 6),
        ("denoise", "--resume", 9),
        ("denoise into a run", "--resume", 9),
        *(
            pytest.param(name, then, 1, marks=pytest.mark.long)
            for name in COMMANDS
            for then in ("--resume", "--force")
        ),
    ],
)
def test_a_command_that_was_killed_at_any_step_can_be_repeated(
    name: str, then: str, every: int, fresh: Callable[[], Path]
) -> None:
    words = COMMANDS[name]
    with serving(words, fresh()) as server:
        whole = fresh()
        code, steps, text = server.run(words, whole)
        assert code == 0, text
        assert steps > 20
        expected = result(whole)
        for step in range(1, steps + 1, every):
            folder = fresh()
            assert server.run(words, folder, kill_at=step).code < 0
            code, _, text = server.run([*words, then], folder)
            assert code == 0, (step, text)
            assert result(folder) == expected, step


@pytest.mark.slow
def test_a_replacement_that_was_killed_at_any_step_can_be_repeated(
    fresh: Callable[[], Path],
) -> None:
    words = COMMANDS["train"]
    with serving(words, fresh()) as server:
        whole = fresh()
        server.run(words, whole)
        expected = result(whole)
        steps = server.run([*words, "--force"], whole).steps
        deletion = steps // 4  # the rest is a new run
        for step in range(1, deletion + 1, 3):
            folder = fresh()
            server.run(words, folder)
            assert server.run([*words, "--force"], folder, kill_at=step).code < 0
            for then in ("--resume", "--force"):
                code, _, text = server.run([*words, then], folder)
                assert code == 0, (step, then, text)
                assert result(folder) == expected, (step, then)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "every"),
    [
        ("train", 8),
        ("denoise", 11),
        *(pytest.param(name, 1, marks=pytest.mark.long) for name in ("train", "denoise")),
    ],
)
def test_a_disk_that_fails_at_any_step_is_told_in_one_line_and_what_was_finished_is_kept(
    name: str, every: int, fresh: Callable[[], Path]
) -> None:
    words = COMMANDS[name]
    with serving(words, fresh()) as server:
        whole = fresh()
        steps = server.run(words, whole).steps
        expected = result(whole)
        for step in range(1, steps + 1, every):
            folder, error = fresh(), FAULTS[step % len(FAULTS)]
            code, _, text = server.run(words, folder, fail_at=step, error=error)
            if code == 0:  # a temporary file was not there to be deleted
                assert text == "", step
            else:
                assert code == 2, (step, text)
                assert text.startswith("distvae: "), (step, text)
                assert text.count("\n") == 1, (step, text)
                assert os.strerror(error) in text
            code, _, text = server.run([*words, "--resume"], folder)
            assert code == 0, (step, text)
            assert result(folder) == expected, step
