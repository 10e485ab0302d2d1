"""The last digits follow from settings and the processor, which can be recorded and compared."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from distvae.numerics import arithmetic
from distvae.numerics.arithmetic import Arithmetic

CPU = torch.device("cpu")
ZEN_4, ZEN_5, INTEL = (
    "AuthenticAMD family 25 model 17",
    "AuthenticAMD family 26 model 2",
    "GenuineIntel family 6 model 143",
)


@pytest.mark.parametrize(
    "shape", [(32, 200, 513), (64, 64, 64), (1000, 512, 144), (7, 1000, 3)], ids=str
)
@pytest.mark.parametrize("setting", ["auto", "blas", "onednn"])
def test_products_are_those_of_float32(shape: tuple[int, int, int], setting: str) -> None:
    m, k, n = shape
    a, b = torch.randn(m, k), torch.randn(k, n)
    with Arithmetic.of_process(arithmetic.choose_library(setting), 1, CPU).applied():
        assert arithmetic.relative_error(a, b) < arithmetic.PRECISE
        assert arithmetic.relative_error(b.T, a.T) < arithmetic.PRECISE


def test_bfloat16_would_be_noticed() -> None:
    """Round the same operands to bfloat16, on any CPU."""
    a, b = torch.randn(64, 512), torch.randn(512, 64)
    rounded = (a.bfloat16().float() @ b.bfloat16().float()).double()
    true = a.double() @ b.double()
    assert float((rounded - true).norm() / true.norm()) > 10 * arithmetic.PRECISE


@pytest.mark.parametrize(
    ("processor", "suits"),
    [
        (f"{ZEN_5} AVX512", True),
        (f"{ZEN_5} AVX2", False),
        (f"{ZEN_4} AVX512", False),
        (f"{INTEL} AVX512", False),
    ],
)
def test_the_library_follows_from_the_processor_alone(processor: str, suits: bool) -> None:
    assert arithmetic.suits_onednn(processor) is suits


def test_a_recorded_library_is_obeyed_unless_a_setting_says_otherwise() -> None:
    for recorded in ("blas", "onednn") if arithmetic.onednn_is_precise() else ("blas",):
        assert arithmetic.choose_library("auto", {"products": recorded}) == recorded
        assert arithmetic.choose_library("blas", {"products": recorded}) == "blas"


def test_what_torch_does_is_read_back_as_it_was_set() -> None:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    for wanted in (
        Arithmetic.of_process("blas", 1, CPU),
        Arithmetic.of_process("onednn", 2, CPU),
        Arithmetic.of_process("tf32", 1, CPU),
    ):
        with wanted.applied():
            assert Arithmetic.current(CPU) == wanted
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, precision)


def test_every_difference_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Arithmetic.of_process("blas", 1, CPU)
    assert own.differences(own.facts()) == []
    assert replace(own, threads=2).differences(own.facts()) == ["threads 2 instead of 1"]
    assert own.differences(own.facts() | {"torch": "2.0"}) == [
        f"torch {version('torch')} instead of 2.0"
    ]
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert Arithmetic.of_process("blas", 1, CPU).differences(own.facts()) == [
        "MKL_CBWR AVX2 instead of not set"
    ]
    assert own.differences(own.facts() | {"MKL_CBWR": "AVX2"}) == [
        "MKL_CBWR not set instead of AVX2"
    ]


def test_a_cpu_beside_the_same_gpu_makes_no_difference() -> None:
    own = replace(Arithmetic.of_process("blas", 1, CPU), device="NVIDIA H200")
    assert own.differences(own.facts() | {"processor": INTEL}) == []
    assert own.differences(own.facts() | {"device": "cpu"}) == ["device NVIDIA H200 instead of cpu"]


def test_the_processor_is_told_as_the_system_tells_it() -> None:
    processor_file = Path("/proc/cpuinfo")
    if not processor_file.exists() or "vendor_id" not in processor_file.read_text():
        pytest.skip("the system does not say which processor it has in /proc/cpuinfo")
    vendor = next(
        line.split(":")[1].strip()
        for line in processor_file.read_text().splitlines()
        if line.startswith("vendor_id")
    )
    assert arithmetic.processor_name().startswith(f"{vendor} family ")
