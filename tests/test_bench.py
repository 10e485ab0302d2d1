"""The benchmark counts the matrix products that a step really does."""

import json
from pathlib import Path

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from distvae import bench
from distvae.recipes import load


@pytest.mark.parametrize("recipe", ["speech-vae", "speech-vsc", "mnist-vsc"])
def test_the_products_are_those_that_torch_counts_in_a_step(recipe: str) -> None:
    config = load(recipe, {"train.device": "cpu"})
    trainer = bench.trainer_on_noise(config)
    with FlopCounterMode(display=False) as counter:
        trainer.step(np.arange(config.train.batch))
    counted = sum(2 * m * k * n for m, k, n in bench.products(trainer, config.train.batch))
    assert counted == counter.get_total_flops()


def test_a_kept_benchmark_is_a_row_of_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.report("speech-vae", 10, 1, True, tmp_path)
    told = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "bench" / "speech-vae.json").read_text())
    assert kept["figures"]["step_us"] == told["step_us"] > 0
    assert kept["figures"]["ratio"] == pytest.approx(told["step_us"] / told["products_us"])
