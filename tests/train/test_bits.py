"""The same bits: in new processes on a busy machine, after a kill, in equal workers only."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from distvae.config import Config
from distvae.files.refusal import Refusal
from distvae.numerics.arithmetic import onednn_is_precise
from distvae.train.run_folder import read_info
from distvae.train.session import agree_on_arithmetic, fit, run_arithmetic
from distvae.train.team import Team
from tests import tiny
from tests.train.commands import PLAIN, bits, command
from tests.train.crew import Crew
from tests.train.test_session import reproducible_metrics

SMALL = ["speech-vae", "train.epochs=3"]
"""A training whose matrices are large enough for libraries to round differently."""


def altered(folder: Path, **facts: Any) -> None:
    """Make a run say that it was computed differently."""
    for name in ("run.json", "last.json"):
        manifest = json.loads((folder / name).read_text())
        (manifest["facts"] if name == "last.json" else manifest)["arithmetic"] |= facts
        (folder / name).write_text(json.dumps(manifest))


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """Return a run that was interrupted in the third of its four epochs."""
    for epoch in fit(tiny.config(), tiny.dataset(), tmp_path / "run"):
        if epoch.epoch == 2:
            break
    return tmp_path / "run"


def resumed(folder: Path, **train: Any) -> list[Any]:
    return [
        reproducible_metrics(record)
        for record in fit(tiny.config(train=train), tiny.dataset(), folder, resume=True)
    ]


@pytest.mark.parametrize(
    ("settings", "recorded", "named"),
    [
        ({"threads": 2}, {}, "threads 2 instead of 1"),
        ({}, {"processor": "another"}, "instead of another"),
        ({}, {"MKL_CBWR": "AVX2"}, "MKL_CBWR not set instead of AVX2"),
        ({"products": "blas"}, {"products": "onednn"}, "products blas instead of onednn"),
    ],
)
def test_a_run_goes_on_alike_or_says_why_not(
    half: Path, settings: Any, recorded: Any, named: str
) -> None:
    facts = read_info(half)["arithmetic"]
    assert facts["products"] in ("blas", "onednn")
    assert (facts["threads"], facts["device"], facts["torch"]) == (1, "cpu", version("torch"))
    assert json.loads((half / "last.json").read_text())["facts"]["arithmetic"] == facts
    altered(half, **recorded)
    reached = json.loads((half / "last.json").read_text())["facts"]["position"]["epoch"]
    before = sorted((path.name, path.read_bytes()) for path in half.iterdir() if path.is_file())
    with pytest.raises(Refusal, match=f"than the run so far, in .*: .*{named}.*train.bits=any"):
        resumed(half, **settings)
    assert (
        sorted((path.name, path.read_bytes()) for path in half.iterdir() if path.is_file())
        == before
    )
    resumed(half, **settings, bits="any")
    info = read_info(half)
    assert info["arithmetic"]["processor"] != "another"
    assert info["arithmetic_before"][0]["until"] == reached


@pytest.mark.skipif(
    not onednn_is_precise(), reason="oneDNN has not the precision of float32 on this processor"
)
def test_a_recorded_library_is_used_again(half: Path) -> None:
    altered(half, products="onednn")
    resumed(half)
    assert torch.get_float32_matmul_precision() == "medium"
    assert (
        json.loads((half / "last.json").read_text())["facts"]["arithmetic"]["products"] == "onednn"
    )
    with run_arithmetic({"arithmetic": {"products": "blas", "threads": 2}}):
        assert (torch.get_float32_matmul_precision(), torch.get_num_threads()) == ("highest", 2)
    agree_on_arithmetic(tiny.config().train).apply()


def agreed(team: Team, config: Config, variable: str) -> str:
    """Return a worker's library, or its refusal, if the environment limits the library."""
    os.environ.pop("MKL_ENABLE_INSTRUCTIONS", None)
    if variable:
        os.environ["MKL_ENABLE_INSTRUCTIONS"] = variable
    try:
        return agree_on_arithmetic(config.train, team=team).products
    except Refusal as error:
        return str(error)


@pytest.mark.slow
def test_workers_that_compute_in_different_ways_are_refused_by_all_of_them(crew: Crew) -> None:
    config = tiny.config()
    same, other = [""] * 3, ["", "AVX2", ""]
    own = agree_on_arithmetic(config.train).products
    refused = "worker 1 of 3 would compute other last digits than worker 0:"
    assert crew.all(agreed, [config] * 3, same) == [own] * 3
    for answer in crew.all(agreed, [config] * 3, other):
        assert f"{refused} MKL_ENABLE_INSTRUCTIONS AVX2" in answer
    assert crew.all(agreed, [tiny.config(train={"bits": "any"})] * 3, other) == [own] * 3
    forced = [tiny.config(train={"products": name}) for name in ("blas", "onednn", "blas")]
    if onednn_is_precise():
        for answer in crew.all(agreed, forced, same):
            assert f"{refused} products onednn instead of blas" in answer
    first = "onednn" if onednn_is_precise() else "blas"
    obeying = [tiny.config(train={"products": name}) for name in (first, "auto", "auto")]
    assert len(set(crew.all(agreed, obeying, same))) == 1


def trained(out: Path, *settings: str) -> tuple[str, ...]:
    """Return the checksums at the end of a training in its own process."""
    subprocess.run(
        command(PLAIN, SMALL, out, *settings), check=True, capture_output=True, timeout=600
    )
    return tuple(bits(out))


@pytest.mark.long
def test_killed_and_new_processes_on_a_busy_machine_end_with_the_same_bits(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")  # also prepares the data
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(trained, [tmp_path / str(n) for n in range(4)])
        process = subprocess.Popen(command(PLAIN, SMALL, tmp_path / "parts"))
        while not (tmp_path / "parts" / "last.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert trained(tmp_path / "parts", "--resume") == whole
        assert {*found} == {whole}
    other.kill()
    other.wait()


def test_a_gpu_has_libraries_of_its_own() -> None:
    """The setting that selects oneDNN in torch also lets a GPU multiply in TF32."""
    config = replace(tiny.config().train, products="onednn")
    assert agree_on_arithmetic(config, torch.device("meta")).products == "blas"
    config = replace(tiny.config().train, tf32=True)
    assert agree_on_arithmetic(config, torch.device("meta")).products == "tf32"
    assert agree_on_arithmetic(config).products in ("blas", "onednn")
    with run_arithmetic({"arithmetic": {"products": "tf32", "threads": 1}}):
        assert torch.get_float32_matmul_precision() == "highest", "it is evaluated on the CPU"
