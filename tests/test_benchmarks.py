"""Benchmarks count the operations that torch really does, and keep their figures as rows."""

import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu, steps, training
from distvae.config.recipes import load
from distvae.reproduce.rows import read_rows


@pytest.mark.parametrize("recipe", ["speech-vae", "speech-vsc", "mnist-vsc"])
def test_the_products_are_those_that_torch_counts_in_a_step(recipe: str) -> None:
    config = load(recipe, {"train.device": "cpu"})
    trainer = steps.trainer_on_noise(config)
    with FlopCounterMode(display=False) as counter:
        trainer.step(np.arange(config.train.batch))
    counted = sum(2 * m * k * n for m, k, n in steps.matrix_products(trainer, config.train.batch))
    assert counted == counter.get_total_flops()


@pytest.mark.parametrize("case", ["s64", "sdm-1024"])
def test_the_products_of_a_case_are_those_that_torch_counts(case: str) -> None:
    config, rows = gpu.CASES[case](256)
    counted, seen = (
        training.new_trainer(config.with_("train", graphs=False), rows, rows[:64]) for _ in "ab"
    )
    with FlopCounterMode(display=False) as counter:
        taken = training.train_steps(counted, 2)
    with gpu.OperationCounter() as operations:
        assert training.train_steps(seen, 2) == taken
    flops = sum(2 * b * m * k * n for b, m, k, n in operations.products)
    assert flops == counter.get_total_flops()
    assert gpu.replay_products(operations.products[:3], torch.device("cpu")) > 0


def test_events_of_a_gpu_are_counted_by_their_names() -> None:
    counts = {"cudaLaunchKernel": 3, "cuLaunchKernelEx": 2, "cudaGraphLaunch": 1, "add": 9}
    counts["Memcpy HtoD (Pinned -> Device)"] = 4
    assert gpu.count_events(counts) == {"launches": 6, "copies": 4}


def slower(*cases: tuple[list[str], str]) -> list["pytest.ParameterSet"]:
    return [pytest.param(*case, marks=pytest.mark.long) for case in cases]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "row"),
    [
        (["steps", "speech-vae", "--steps", "5"], "speech-vae"),
        (["rows", "--rows", "5000", "--values", "20", "--blocks", "1"], "rows-5000"),
        *slower(
            (["tvae", "small", "--rows", "1024", "--epochs", "1"], "tvae-small"),
            (["gpu", "sdm-1024", "--device", "cpu", "--rows", "1024"], "gpu-sdm-1024-on-cpu"),
            (["scale", "supports", "--rows", "512", "--check"], "scale-supports-batch-32"),
            (
                ["workers", "speech-sdm", "--rows", "128", "--epochs", "1", "--turns", "1"],
                "workers-speech-sdm-batch-32",
            ),
        ),
    ],
    ids=["steps", "rows", "tvae", "gpu", "scale", "workers"],
)
def test_each_prints_its_figures_and_keeps_them_as_a_row(
    tmp_path: Path,
    words: list[str],
    row: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", [*words, "--json", "--keep", str(tmp_path)])
    import_module(f"benchmarks.{words[0]}").main()
    printed = json.loads(capsys.readouterr().out)
    (kept,) = read_rows(tmp_path, "bench")
    assert kept.name == row
    assert kept.figures.items() <= printed.items()
    assert kept.config.items() <= printed.items()


def test_a_case_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.main(["huge"])
    assert ended.value.code == 2
    assert "huge: big, s64" in capsys.readouterr().err
