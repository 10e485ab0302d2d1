"""Benchmarks count the operations that torch really does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from distvae.bench import counting, gpu, steps, store, tvae, workers
from distvae.bench.output import Output
from distvae.config.recipes import load
from distvae.files.refusal import Refusal
from distvae.train.run import read_epochs
from tests.called import Called


@pytest.mark.parametrize("recipe", ["speech-vae", "speech-vsc", "mnist-vsc"])
def test_the_products_are_those_that_torch_counts_in_a_step(recipe: str) -> None:
    config = load(recipe, {"train.device": "cpu"})
    trainer = steps.trainer_on_noise(config)
    with FlopCounterMode(display=False) as counter:
        trainer.step(np.arange(config.train.batch))
    counted = sum(2 * m * k * n for m, k, n in steps.matrix_products(trainer, config.train.batch))
    assert counted == counter.get_total_flops()


def test_a_recipe_that_searches_is_not_timed_by_its_steps_alone() -> None:
    with pytest.raises(Refusal, match="distvae bench tvae"):
        steps.bench_steps("bars", 10, 1, Output(json=True))


def test_a_kept_benchmark_is_a_row_of_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps.bench_steps("speech-vae", 10, 1, Output(True, tmp_path))
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "bench" / "speech-vae.json").read_text())
    assert kept["figures"]["step_us"] == printed["step_us"] > 0
    assert kept["figures"]["ratio"] == pytest.approx(printed["step_us"] / printed["products_us"])


def dense_step(case: tvae.Case) -> None:
    """Do the products of the dense algorithm for one row: decode new states, and differentiate the
    kept ones.
    """
    latent, hidden, dims = case.widths
    new = case.parents * case.children * case.generations
    first, second = (
        torch.randn(latent, hidden).requires_grad_(),
        torch.randn(hidden, dims).requires_grad_(),
    )
    with torch.no_grad():
        torch.rand(case.states + new, latent) @ first @ second
    (torch.rand(case.states, latent) @ first @ second).sum().backward()


@pytest.mark.parametrize("case", tvae.CASES.values(), ids=tvae.CASES)
def test_the_dense_bound_counts_what_torch_counts_in_the_dense_algorithm(case: tvae.Case) -> None:
    with FlopCounterMode(display=False) as counter:
        dense_step(case)
    assert case.flops == counter.get_total_flops()


def test_the_published_cases_have_as_many_patches_as_published() -> None:
    assert [len(tvae.noisy_patches(case, None)) for case in tvae.CASES.values()] == [60025, 62001]


@pytest.mark.slow
def test_a_benchmark_of_tvae_tells_its_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tvae.bench_tvae(None, 1024, 1, 1, Output(True, tmp_path))
    for line in capsys.readouterr().out.splitlines():
        printed = json.loads(line)
        kept = json.loads((tmp_path / "bench" / f"tvae-{printed['case']}.json").read_text())[
            "figures"
        ]
        assert (
            kept["epoch_s"]
            == printed["epoch_s"]
            == pytest.approx(printed["estep_s"] + printed["mstep_s"])
        )
        assert printed["ratio"] == pytest.approx(printed["epoch_s"] / printed["dense_s"])
        assert 0 < printed["distinct"] <= 1


@pytest.mark.long
def test_a_benchmark_of_workers_goes_on_from_one_trained_state(tmp_path: Path) -> None:
    workers.prepare_run(tvae.SIZES["s64"], None, 1024, 2, tmp_path)
    assert len(read_epochs(tmp_path / "run")) == 2
    turns = [workers.take_turn(way, tmp_path, 1024) for way in ("plain", "apart", "torchrun")]
    plain, apart, together = (turn.objective for turn in turns)
    assert plain == apart == pytest.approx(together, rel=1e-5)
    assert len(read_epochs(tmp_path / "torchrun-0")) == 3 + workers.TIMED
    for turn in turns:
        assert turn.epoch > 0
        assert turn.start > 0
        assert turn.waits == 0


@pytest.mark.slow
def test_a_benchmark_of_shards_tells_what_they_hold_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "storage").mkdir()
    store.bench_store(4096, 2, 10, tmp_path / "storage", Output(True, tmp_path))
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "bench" / "store-4096.json").read_text())["figures"]
    assert kept["held_gb"] * 1e9 == 4096 * 64 * 64 == pytest.approx(2e9 * printed["own_gb"])
    assert kept["saved_gb"] > kept["held_gb"]
    assert not list((tmp_path / "storage").iterdir())


@pytest.mark.parametrize("case", ["vsc-32", "sdm-128"])
def test_the_products_of_a_step_are_those_of_its_layers(case: str) -> None:
    trainer = gpu.new_trainer(gpu.CASES[case](1024), torch.device("cpu"))
    taken, shapes, operations = counting.record_steps(trainer, 2)
    assert taken == 2
    assert sorted(shapes) == sorted(
        2 * [(1, *shape) for shape in steps.matrix_products(trainer, trainer.config.batch)]
    )
    assert operations > len(shapes)


def test_the_products_that_are_replayed_are_those_of_the_shapes() -> None:
    shapes = [(1, 2, 3, 4), (5, 4, 3, 2), (1, 7, 1, 7)]
    with FlopCounterMode(display=False) as counter:
        assert counting.replay_products(shapes, torch.device("cpu")) > 0
    assert counter.get_total_flops() == 2 * sum(2 * b * m * k * n for b, m, k, n in shapes), (
        "once to warm up"
    )


def test_what_a_step_asks_of_cuda_is_told_by_the_names_of_events() -> None:
    counts = {
        "cudaLaunchKernel": 5,
        "cuLaunchKernelEx": 2,
        "cudaLaunchCooperativeKernel": 1,
        "aten::mm": 9,
    }
    counts |= {
        "Memcpy HtoD (Pageable -> Device)": 3,
        "Memcpy DtoH (Device -> Pinned)": 4,
        "Memcpy DtoD": 8,
    }
    assert counting.count_events(counts) == {"launches": 8, "copies": 7}


def test_a_benchmark_of_a_device_tells_an_epoch_and_its_products(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.bench_gpu(["sdm-1024"], gpu.GpuSettings("cpu", 1024, 1), Output(True, tmp_path))
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "bench" / "gpu-sdm-1024-on-cpu.json").read_text())
    assert (
        kept["figures"]["epoch_s"]
        == printed["epoch_s"]
        == pytest.approx(printed["ratio"] * printed["products_s"])
    )
    assert kept["config"]["device"] == printed["device"] == "cpu"
    gpu.bench_gpu(["sdm-1024"], gpu.GpuSettings("cpu", 1024, 1), Output())
    heading, row = capsys.readouterr().out.splitlines()[1:]
    assert len(heading) == len(row)
    assert row.split()[:2] == ["sdm-1024", "1024"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["gpu", "none"], "'none'; big, s64, vsc-32"), (["gpu", "--device", "tpu"], "--device")],
)
def test_a_benchmark_of_what_there_is_not_is_refused(
    call: Called, words: list[str], message: str
) -> None:
    code, _, err = call("bench", *words)
    assert code == 2
    assert message in err


@pytest.mark.slow
@pytest.mark.parametrize("case", gpu.CASES)
def test_every_case_is_timed(case: str) -> None:
    figures = gpu.measure_case(case, torch.device("cpu"), gpu.GpuSettings("cpu", 2048, 1))
    assert all(np.isfinite(value) and value > 0 for value in figures.values())
