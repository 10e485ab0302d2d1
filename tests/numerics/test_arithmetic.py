"""The last digits follow from settings and the processor, which can be recorded and compared."""

from dataclasses import replace
from importlib.metadata import version

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


@pytest.mark.parametrize("setting", ["auto", "blas", "onednn"])
def test_products_are_those_of_float32_and_bfloat16_would_be_noticed(setting: str) -> None:
    with Arithmetic.of_process(arithmetic.choose_library(setting), 1, CPU).applied():
        for m, k, n in ((32, 200, 513), (1000, 512, 144), (7, 1000, 3)):
            a, b = torch.randn(m, k), torch.randn(k, n)
            assert arithmetic.relative_error(a, b) < arithmetic.PRECISE
            assert arithmetic.relative_error(b.T, a.T) < arithmetic.PRECISE
    rounded = (a.bfloat16().float() @ b.bfloat16().float()).double()
    true = a.double() @ b.double()
    assert float((rounded - true).norm() / true.norm()) > 10 * arithmetic.PRECISE


def test_the_library_follows_from_the_processor_or_from_a_record() -> None:
    assert arithmetic.suits_onednn(f"{ZEN_5} AVX512")
    for other in (f"{ZEN_5} AVX2", f"{ZEN_4} AVX512", f"{INTEL} AVX512"):
        assert not arithmetic.suits_onednn(other)
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


def test_every_difference_is_named_but_that_of_a_cpu_beside_the_same_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = Arithmetic.of_process("blas", 1, CPU)
    facts = own.facts()
    assert own.differences(facts) == []
    assert replace(own, threads=2).differences(facts) == ["threads 2 instead of 1"]
    older = facts | {"torch": "2.0", "MKL_CBWR": "AVX2"}
    torchs = f"torch {version('torch')} instead of 2.0"
    assert own.differences(older) == [torchs, "MKL_CBWR not set instead of AVX2"]
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    wide = Arithmetic.of_process("blas", 1, CPU)
    assert wide.differences(facts) == ["MKL_CBWR AVX2 instead of not set"]
    gpu = replace(own, device="NVIDIA H200")
    assert gpu.differences(gpu.facts() | {"processor": INTEL}) == []
    assert gpu.differences(gpu.facts() | {"device": "cpu"}) == ["device NVIDIA H200 instead of cpu"]
