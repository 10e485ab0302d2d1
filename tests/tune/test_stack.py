"""Trials of equal shapes that train at once in a process: each is as if it had trained alone."""

import json
import signal
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.machines.workers import stop_files
from distvae.machines.workers.stop_files import STOP_FILE
from distvae.machines.workers.worker_group import WorkerGroup
from distvae.train.checkpoint import load
from distvae.tune.optuna_study import NextTrial
from distvae.tune.resources import TrialResources
from distvae.tune.space import Space
from distvae.tune.space_files import read_space
from distvae.tune.stacks.process import Orders, StackReport, TrialStack, run_stack
from distvae.tune.stacks.shape import FREE, stack_shape
from distvae.tune.stacks.stacked import (
    AUTOMATIC,
    parse_stack,
    resources_of_stacks,
)
from distvae.tune.trial import Trials, run_trial
from tests.called import Called
from tests.tune.sweeps import TREE

Values = Mapping[str, Plain]
WIDE: dict[str, Plain] = {"model.hidden": [40], "estep.hidden": [40], "model.latent": 16}
"""Layers whose products are computed together."""
TRIALS: list[dict[str, Any]] = [
    {"model.kind": "vae", "train.rate": 1e-3},
    {"model.kind": "vae", "train.rate": 1e-2, "model.beta": 2.0, "train.epochs": 4},
    {"model.kind": "vae", "train.seed": 7, "train.schedule": "constant"},
]


@pytest.fixture
def space(images: Path) -> Space:
    tree: dict[str, Any] = TREE | {
        "axes": [{"key": "train.rate", "float": [1e-4, 1e-2]}],
        "search": "random",
    }
    return read_space("tiny", tree).pinned(
        {"data.path": str(images), "eval.processes": 1, "train.threads": 1, **WIDE}
    )


def in_steps(stack: TrialStack) -> Iterator[tuple[int, StackReport]]:
    """Train until all trials have ended."""
    while stack.members:
        stack.train()
        yield from stack.reports().items()


def train_stacked(trials: Trials, tried: Mapping[int, Values]) -> dict[int, list[StackReport]]:
    stack = TrialStack(trials)
    stack.follow(Orders([NextTrial(number, dict(values)) for number, values in tried.items()]))
    found: dict[int, list[StackReport]] = {number: [] for number in tried}
    for number, report in in_steps(stack):
        found[number].append(report)
    return found


def assert_same_run(one: Path, other: Path) -> None:
    """Compare parameters, moments and records of epochs bit by bit, without times."""
    for name in ("best", "last"):
        (tensors, _), (expected, _) = load(one, name), load(other, name)
        assert tensors.keys() == expected.keys()
        for key, value in expected.items():
            assert tensors[key].equal(value), key
    assert records(one) == records(other)


def records(folder: Path) -> list[dict[str, float]]:
    found = []
    for line in (folder / "epochs.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.append({k: v for k, v in record.items() if "second" not in k})
    return found


def test_stacked_trials_have_the_bits_of_trials_alone(space: Space, tmp_path: Path) -> None:
    together, alone = Trials(space, tmp_path / "stacked"), Trials(space, tmp_path / "alone")
    found = train_stacked(together, dict(enumerate(TRIALS)))
    for number, values in enumerate(TRIALS):
        *_, last = run_trial(alone, number, values)
        assert found[number][-1].last == last
        assert_same_run(together.folder_of(number), alone.folder_of(number))
        files = {path.relative_to(alone.folder) for path in alone.folder_of(number).rglob("*")}
        mine = {path.relative_to(together.folder) for path in together.folder.rglob("*")}
        assert {path for path in files if path.suffix != ".safetensors"} <= mine


@pytest.mark.parametrize("kind", ["sdm", "vsc"])
def test_models_of_each_kind_are_stacked(kind: str, space: Space, tmp_path: Path) -> None:
    space = space.pinned({"model.kind": kind, **WIDE, "train.rate": 1e-3})
    together, alone = Trials(space, tmp_path / "stacked"), Trials(space, tmp_path / "alone")
    tried: dict[int, Values] = {number: {"train.seed": number} for number in (1, 2)}
    train_stacked(together, tried)
    for number, values in tried.items():
        list(run_trial(alone, number, values))
        assert_same_run(together.folder_of(number), alone.folder_of(number))


def test_a_trial_that_halts_leaves_its_place_to_the_next(space: Space, tmp_path: Path) -> None:
    space = space.pinned({"train.epochs": 30})
    together, alone = Trials(space, tmp_path / "stacked"), Trials(space, tmp_path / "alone")
    stack = TrialStack(together)
    stack.follow(Orders([NextTrial(1, TRIALS[0]), NextTrial(2, TRIALS[2])]))
    while not stack.members[1].epochs:
        stack.take()
        stack.advance()
    reached = stack.reports()[1].epochs[-1][0]
    stack.follow(Orders([NextTrial(3, {"train.seed": 3})], halt=[1]))
    assert set(stack.members) == {2, 3}
    last = dict(in_steps(stack))
    assert set(last) == {2, 3}
    assert all(report.last and "figures" in report.last for report in last.values())
    assert len(records(together.folder_of(1))) == reached < 30
    for number, values in ((2, TRIALS[2]), (3, {"train.seed": 3})):
        list(run_trial(alone, number, values))
        assert_same_run(together.folder_of(number), alone.folder_of(number))


def test_a_stack_that_is_stopped_goes_on_from_there(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trial by itself, or stacked with others."""
    monkeypatch.setattr(stop_files, "POLL_LOCAL", 0.0)  # seconds between two looks
    space = space.pinned({"train.epochs": 20, "train.schedule": "constant"})
    together, alone = Trials(space, tmp_path / "stacked"), Trials(space, tmp_path / "alone")
    stack = TrialStack(together)
    tried: dict[int, Values] = {number: {"train.seed": number} for number in (1, 2, 3)}
    stack.follow(Orders([NextTrial(number, dict(values)) for number, values in tried.items()]))
    for _ in range(10):
        stack.advance()
        stack.take()
    asked = together.folder / STOP_FILE.format(together.owner)
    asked.touch()
    last = dict(in_steps(stack))
    assert [report.last for report in last.values()] == [{"stopped": True}] * 3
    asked.unlink()
    train_stacked(together, {1: tried[1], 3: tried[3]})
    list(run_trial(together, 2, tried[2]))
    for number, values in tried.items():
        list(run_trial(alone, number, values))
        assert_same_run(together.folder_of(number), alone.folder_of(number))


def test_a_trial_that_diverges_fails_and_the_others_go_on(space: Space, tmp_path: Path) -> None:
    together = Trials(space, tmp_path / "stacked")
    found = train_stacked(together, {1: {"train.rate": 1e30}, 2: {"train.rate": 1e-3}})
    last = {number: reports[-1].last for number, reports in found.items()}
    assert last[1] is not None
    assert last[1]["failure"].startswith("the objective is no longer finite")
    assert last[2] is not None
    assert "figures" in last[2]


def test_models_without_a_stacked_form_train_one_after_another(
    space: Space, tmp_path: Path
) -> None:
    space = space.pinned({"train.gradients": "autograd"})
    stack = TrialStack(Trials(space, tmp_path))
    tried = [NextTrial(number, {"train.seed": number}) for number in (1, 2)]
    stack.follow(Orders(tried))
    for _ in range(3):
        stack.advance()
        assert stack.members[1].step is not None
        assert stack.members[2].step is None
        stack.take()
    ended = [number for number, report in in_steps(stack) if report.last and report.alone]
    assert ended == [1, 2]


def test_only_what_is_no_shape_may_differ(space: Space) -> None:
    base = space.base
    free: dict[str, Plain] = {"train.seed": 5, "train.rate": 0.1, "eval.importance": 5}
    for key, value in free.items():
        assert stack_shape(space.config({key: value})) == stack_shape(base)
    different: dict[str, Plain] = {"model.latent": 3, "train.batch": 8, "model.kind": "sdm"}
    for key, value in different.items():
        assert stack_shape(space.config({key: value})) != stack_shape(base)
    assert all(key.startswith(("train.", "model.")) for key in FREE)


def test_a_process_ends_with_the_process_of_the_sweep(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, action: None)
    own, its = Pipe()
    own.close()
    run_stack(Trials(space, tmp_path), its)


def test_the_size_of_a_stack_is_read() -> None:
    assert parse_stack(None) is None
    assert parse_stack("auto") == AUTOMATIC
    assert parse_stack("3") == 3


@pytest.mark.parametrize("value", ["0", "-1", "65", "many", "1.5", ""])
def test_a_bad_size_of_a_stack_is_refused(value: str, call: Called) -> None:
    code, _, err = call("tune", "demo", "--stack", value)
    assert code == 2
    assert "--stack: " in err
    assert "auto, or a number of trials from 1 to 64" in err


@pytest.mark.parametrize(
    ("resources", "named"),
    [
        (TrialResources(WorkerGroup.parse("2")), "--workers"),
        (TrialResources(address="host:6379"), "--address"),
        (TrialResources(gpus=0.5), "--gpus-per-trial"),
    ],
)
def test_stacks_train_on_this_machine_alone(
    resources: TrialResources, named: str, space: Space
) -> None:
    with pytest.raises(Refusal, match=f"--stack: .* no {named} expected"):
        resources_of_stacks(space, resources)
    with pytest.raises(Refusal, match=r"--stack: trains on the CPU"):
        resources_of_stacks(space.pinned({"train.device": "cuda"}), TrialResources())
