"""Benchmarks count the operations that torch really does."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from distvae.bench import (
    batches,
    blocks,
    copies,
    counting,
    gpu,
    growth,
    linear_start,
    order,
    recovery,
    rows,
    stack,
    steps,
    tvae,
    workers,
)
from distvae.bench.output import Output
from distvae.bench.usage import measure_command
from distvae.config.recipes import load
from distvae.data import open_dataset
from distvae.files.refusal import Refusal
from distvae.train.run import read_epochs
from distvae.train.session import build_trainer
from tests.called import Called


@pytest.mark.parametrize("gradients", ["auto", "autograd"])
@pytest.mark.parametrize("recipe", ["speech-vae", "speech-vsc", "mnist-vsc"])
def test_the_products_are_those_that_torch_counts_in_a_step(recipe: str, gradients: str) -> None:
    config = load(recipe, {"train.device": "cpu", "train.gradients": gradients})
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
    both = printed["products_us"] + printed["adam_us"]
    assert kept["figures"]["share"] == pytest.approx(both / printed["step_us"])
    assert printed["autograd_us"] > 0


def test_an_order_is_timed_as_a_list_and_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order.bench_order(order.OrderExtent(5000, 64, 10), False, Output(True, tmp_path))
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    cases = ["listed", "computed-1", "computed-2", "computed-64"]
    assert [record["case"] for record in printed] == cases
    assert all(record["ns_a_row"] > 0 and record["mb"] > 0 for record in printed)
    assert len(list((tmp_path / "bench").iterdir())) == len(cases)


def test_trainings_in_a_stack_are_timed_beside_those_alone_and_end_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = stack.StackSize(trainings=2, batch=32, steps=10, turns=1)
    stack.bench_stack("speech-vae", size, Output(True, tmp_path))
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "bench" / "stack-speech-vae-32-2.json").read_text())["figures"]
    assert kept["same_bits"] == printed["same_bits"] == 1.0
    assert kept["stacked_times"] == pytest.approx(kept["alone_us"] / kept["stacked_us"])
    with pytest.raises(Refusal, match="has a stacked form"):
        stack.bench_stack("mnist-gumbel", size, Output())


def dense_step(case: tvae.HouseCase) -> None:
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
def test_the_dense_bound_counts_what_torch_counts_in_the_dense_algorithm(
    case: tvae.HouseCase,
) -> None:
    with FlopCounterMode(display=False) as counter:
        dense_step(case)
    assert case.flops == counter.get_total_flops()


def test_a_linear_start_scores_the_same_by_one_layer_as_by_all(tmp_path: Path) -> None:
    extent = linear_start.StatesExtent(rows=3, states=5, active=14, turns=1)
    linear_start.bench_linear_start("natural-deep", extent, Output(True, tmp_path))
    row = json.loads((tmp_path / "bench" / "linear-start-natural-deep.json").read_text())
    assert row["figures"]["difference"] <= 1e-6 * row["figures"]["largest"]
    with pytest.raises(Refusal, match="mnist-vae: its decoder does not begin linear"):
        linear_start.measure_linear_start("mnist-vae", extent)


def test_the_published_cases_have_as_many_patches_as_published() -> None:
    assert [len(tvae.noisy_patches(case, None)) for case in tvae.CASES.values()] == [60025, 62001]


def sizes(grown: growth.Growth) -> tuple[int, int, int, int]:
    """The rows, latents, values and states."""
    latents, _, values = grown.case.widths
    return grown.rows, latents, values, grown.case.states


def test_each_case_of_growth_has_twice_as_much_of_one_thing() -> None:
    cases = growth.growths()
    base = sizes(cases.pop("base"))
    for place, grown in enumerate(cases.values()):
        times = [now / before for now, before in zip(sizes(grown), base, strict=True)]
        assert times.pop(place) == pytest.approx(2, rel=0.01)
        assert times == [1, 1, 1]


@pytest.mark.long
def test_the_growth_of_an_epoch_is_kept_as_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = growth.Growth(tvae.CASES["small"], 1024)
    monkeypatch.setattr(growth, "growths", lambda: {"few": few})
    growth.bench_growth(None, 1, Output(True, tmp_path))
    row = json.loads((tmp_path / "bench" / "growth-few.json").read_text())
    figures = row["figures"]
    assert 0 < figures["least_s"] <= figures["epoch_s"] <= figures["most_s"]
    assert figures["peak_gb"] > 0
    assert row["config"]["rows"] == 1024


@pytest.mark.long
def test_a_benchmark_of_tvae_tells_its_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tvae, "CASES", {"small": tvae.CASES["small"]})
    tvae.bench_tvae(None, 1024, 1, 1, Output(True, tmp_path))
    (line,) = capsys.readouterr().out.splitlines()
    printed = json.loads(line)
    kept = json.loads((tmp_path / "bench" / "tvae-small.json").read_text())["figures"]
    assert kept["epoch_s"] == printed["epoch_s"]
    assert printed["epoch_s"] == pytest.approx(printed["estep_s"] + printed["mstep_s"])
    assert printed["ratio"] == pytest.approx(printed["epoch_s"] / printed["dense_s"])
    assert 0 < printed["distinct"] <= 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["s64", "speech-sdm"])
def test_a_benchmark_of_workers_goes_on_from_one_trained_state(name: str, tmp_path: Path) -> None:
    extent = workers.Extent(rows=1024, epochs=2, turns=2, batch=32)
    workers.prepare_run(dict(workers.subjects(None, extent))[name], extent.epochs, tmp_path)
    assert len(read_epochs(tmp_path / "run-1")) == 2
    figures = workers.measure_workers(2, tmp_path)
    assert figures["differ"] < 1e-5
    for way in workers.WAYS:
        assert len(read_epochs(tmp_path / f"{way}-0")) >= 7
        assert 0 < figures[f"{way}_s_min"] <= figures[f"{way}_s"] <= figures[f"{way}_s_max"]
        assert figures[f"{way}_processor_s"] > 0


@pytest.mark.long
def test_a_benchmark_of_copies_tells_how_long_they_take(tmp_path: Path) -> None:
    copies.bench_copies(2048, 10, Output(True, tmp_path))
    kept = json.loads((tmp_path / "bench" / "copies-2048.json").read_text())["figures"]
    assert kept["gb"] == 2048 * copies.STATES * 64 / 1e9
    assert 0 < kept["send_ms"] < kept["block_ms"]
    assert 0 < kept["fill_s"] < 1e-3 * kept["point_ms"] * 2048


@pytest.mark.parametrize(("seconds", "counted"), [(0.0, 1), (1.0, 2)])
@pytest.mark.long
def test_a_process_that_is_only_starting_a_program_is_not_counted(
    seconds: float, counted: int
) -> None:
    lines = [
        "import os, time",
        "held = bytearray(2**25)",
        f"os.fork() or (time.sleep({seconds}), os._exit(0))",
        "os.wait(), time.sleep(0.5)",
    ]
    used = measure_command([sys.executable, "-c", "\n".join(lines)])
    assert len(used.held()) == counted


@pytest.mark.long
def test_a_benchmark_of_rows_tells_what_ingest_and_training_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "TRAINED_SECONDS", 2.0)
    rows.bench_rows(rows.RowsCase(400_000, 8, 1, 1), tmp_path, Output(True, tmp_path))
    kept = json.loads((tmp_path / "bench" / "rows-400000.json").read_text())["figures"]
    assert kept["ingest_processes"] == 1
    # Each row is written to a slab and to a file, and read from the slab.
    assert kept["ingest_row_written"] > 2 * 4 * 8
    assert kept["ingest_row_read"] > 4 * 8
    assert 0 < kept["ingest_held_gb"] < kept["ingest_peak_gb"]
    for way in ("one", "torchrun"):
        assert 0 < kept[f"{way}_block_row_ms"] < 1e3
        # Two blocks were saved, and what came after them was killed.
        assert kept[f"{way}_resumed_at_batch"] == 2 * blocks.BLOCK / blocks.BATCH
    assert 0 < kept["ray_recovery_s"] < 600
    assert kept["ray_resumed_at_row"] == kept["ray_stopped_at_row"]
    assert kept["ray_stopped_at_row"] > kept["ray_killed_at_row"]


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
        "cudaGraphLaunch": 4,
        "aten::mm": 9,
    }
    counts |= {
        "Memcpy HtoD (Pageable -> Device)": 3,
        "Memcpy DtoH (Device -> Pinned)": 4,
        "Memcpy DtoD": 8,
    }
    assert counting.count_events(counts) == {"launches": 12, "copies": 7}


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
    gpu.bench_gpu(["sdm-1024"], gpu.GpuSettings("cpu", 1024, 1, graphs=True), Output())
    heading, row = capsys.readouterr().out.splitlines()[1:]
    assert len(heading) == len(row)
    assert row.split()[:2] == ["sdm-1024", "1024"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["gpu", "none"], "'none'; big, s64, bsc"), (["gpu", "--device", "tpu"], "--device")],
)
def test_a_benchmark_of_what_there_is_not_is_refused(
    call: Called, words: list[str], message: str
) -> None:
    code, _, err = call("bench", *words)
    assert code == 2
    assert message in err


@pytest.mark.long
@pytest.mark.parametrize("case", gpu.CASES)
def test_every_case_is_timed(case: str) -> None:
    figures = gpu.measure_case(case, torch.device("cpu"), gpu.GpuSettings("cpu", 2048, 1))
    assert all(np.isfinite(value) and value > 0 for value in figures.values())


def kept_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The figures of each kept row, by its name."""
    files = (folder / "batches").glob("*.json")
    return {file.stem: json.loads(file.read_text())["figures"] for file in files}


@pytest.mark.slow
def test_batches_are_compared_and_finished_trainings_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = load("bars", {"train.epochs": 2, "train.device": "cpu"})
    batches.bench_batches("bars", base, batches.Sizes((32, 64)), Output(True, tmp_path))
    rows = kept_rows(tmp_path)
    assert set(rows) == {f"bars-{of}-2-s0" for of in ("32-held", "64-held", "64-root", "64-linear")}
    own = [epoch.val_bound for epoch in build_trainer(base, open_dataset(base.data)).run()]
    bounds = rows["bars-32-held-2-s0"]["bound_by_epoch"]
    assert bounds == pytest.approx(own, abs=1e-3)  # the base is the recipe
    assert len({row["val_bound"] for row in rows.values()}) == 4
    assert len(capsys.readouterr().out.splitlines()) == 4
    monkeypatch.setattr(batches, "train_case", None)
    batches.bench_batches("bars", base, batches.Sizes((32, 64)), Output(folder=tmp_path))
    told = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[1] for line in told] == ["held", "held", "root", "linear"]


def test_a_batch_that_is_faster_gets_the_epochs_that_fit_the_time_of_the_base() -> None:
    case = batches.BatchCase("bars", load("bars", {"train.epochs": 4}), 64)
    slow, fast = (batches.Result([1.0] * 4, [], seconds, False) for seconds in (8.0, 3.0))
    longer = batches.lengthen(case, fast, slow)
    assert longer is not None
    assert longer.config.train.epochs == 11  # 4 * 8 / 3
    assert batches.lengthen(case, slow, fast) is None


def test_a_picture_is_judged_by_what_is_restored(tmp_path: Path) -> None:
    picture = np.tile(np.arange(0, 240, 10), (24, 1)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    settings = {"data.noise": 25, "data.path": str(tmp_path / "a.png"), "train.epochs": 2}
    light = {"estep.states": 16, "model.latent": 9, "model.hidden": [4], "train.device": "cpu"}
    config = load("house-25", settings | light)
    result = batches.train_case(batches.BatchCase("house-25", config, 32))
    assert len(result.psnrs) == len(result.bounds) == 2
    assert result.quality == result.figures()["psnr"] == result.psnrs[-1]
    assert result.bound == result.bounds[-1]


def test_a_part_of_the_data_is_every_so_many_th_row() -> None:
    config = load("bars")
    whole, part = (batches.open_part(config, rows) for rows in (None, 100))
    assert np.array_equal(part.splits["train"][:], whole.splits["train"][::5])
