"""Fix the libraries, threads and precision, which decide the last digits of a result.

The choice follows from settings and from the processor, never from timing. A training records its
choice. A process that resumes or joins the training makes the same choice, or says why it cannot.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch
from torch import Tensor

from distvae.system import processor_kind

Library = Literal["blas", "onednn"]
"""The library that multiplies matrices on the CPU: torch's BLAS (MKL on x86), or oneDNN."""
Products = Literal[Library, "tf32"]
"""How matrices are multiplied: by a library on the CPU, or in TF32 on a GPU. On a GPU, "blas" means
float32.
"""
PRECISIONS: dict[Products, str] = {"blas": "highest", "onednn": "medium", "tf32": "high"}
"""Torch's names for the precision. "medium" lets torch multiply with oneDNN in bfloat16. A
processor without bfloat16 still multiplies in float32.
"""

PRECISE = 1e-5  # relative error of a product in float32; in bfloat16 it is 2e-3
SHAPES = ((1024, 512, 144), (32, 512, 512), (4096, 64, 64))
WIDE_AMD = 26  # the family of Zen 5, the first of AMD's cores to multiply 512 bits at once
PACKAGES = ("torch", "numpy", "numba")
VARIABLES = re.compile(
    r"MKL_(CBWR|ENABLE_INSTRUCTIONS)|ONEDNN_MAX_CPU_ISA|ATEN_CPU_CAPABILITY|NUMBA_(CPU|DISABLE)_\w+"
)
"""Environment variables that make a library compute differently on the same processor."""


@dataclass(frozen=True)
class Arithmetic:
    """All that decides the bits of a training, for a given number of workers."""

    products: Products
    threads: int
    device: str
    """`cpu`, or the name of the GPU."""
    processor: str
    versions: Mapping[str, str]
    variables: Mapping[str, str]

    @classmethod
    def of_process(cls, products: Products, threads: int, device: torch.device) -> "Arithmetic":
        """Return the arithmetic of this process with the given products and threads."""
        names = sorted(name for name in os.environ if VARIABLES.fullmatch(name))
        variables = {name: os.environ[name] for name in names}
        is_gpu = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if is_gpu else device.type
        versions = {package: _version(package) for package in PACKAGES}
        return cls(products, threads, name, processor_name(), versions, variables)

    @classmethod
    def current(cls, device: torch.device) -> "Arithmetic":
        """Return the current arithmetic of torch."""
        precision = torch.get_float32_matmul_precision()
        products = next(name for name, value in PRECISIONS.items() if value == precision)
        return cls.of_process(products, torch.get_num_threads(), device)

    def apply(self) -> None:
        """Make torch use this arithmetic from now on."""
        torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision(PRECISIONS[self.products])
        if self.device != "cpu":
            torch.backends.cudnn.allow_tf32 = self.products == "tf32"
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Make torch use this arithmetic within the `with` block."""
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        self.apply()
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)

    def facts(self) -> dict[str, str | int]:
        """Return all values by name, as they are recorded and compared."""
        settings = {"products": self.products, "threads": self.threads, "device": self.device}
        return settings | {"processor": self.processor, **self.versions, **self.variables}

    def differences(self, recorded: Mapping[str, object]) -> list[str]:
        """Return a description of each difference from recorded facts."""
        present = self.facts()
        ignored = set()
        if self.device != "cpu" and recorded.get("device") == self.device:
            ignored = {"processor"}  # the CPU multiplies nothing then
        names = [*recorded, *(name for name in present if name not in recorded)]
        found = []
        for name in names:
            now, before = present.get(name, "not set"), recorded.get(name, "not set")
            if now != before and name not in ignored:
                found.append(f"{name} {now} instead of {before}")
        return found


def choose_library(setting: str, recorded: Mapping[str, object] | None = None) -> Library:
    """Return the library for matrix products.

    `auto` takes the recorded library, or else the library that suits this CPU.
    """
    wanted = (recorded or {}).get("products") if setting == "auto" else setting
    if wanted is None:
        wanted = "onednn" if suits_onednn(processor_name()) else "blas"
    return "onednn" if wanted == "onednn" and onednn_is_precise() else "blas"


def suits_onednn(name: str) -> bool:
    """Return whether oneDNN is much faster than MKL on a processor.

    MKL multiplies 256 bits at a time on AMD's cores, which can do 512 from Zen 5 on.
    """
    found = re.match(r"AuthenticAMD family (\d+)", name)
    return found is not None and int(found[1]) >= WIDE_AMD and "AVX512" in name


@lru_cache
def onednn_is_precise() -> bool:
    """Return whether oneDNN multiplies with float32's precision on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    draws = torch.Generator().manual_seed(0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        errors = []
        for m, k, n in SHAPES:
            a, b = torch.randn(m, k, generator=draws), torch.randn(k, n, generator=draws)
            errors += [relative_error(a, b), relative_error(b.T, a.T)]
        return max(errors) < PRECISE
    finally:
        torch.set_float32_matmul_precision(before)


def relative_error(a: Tensor, b: Tensor) -> float:
    """Return the error of a product relative to its norm."""
    exact = a.double() @ b.double()
    return float((a @ b - exact).norm() / exact.norm())


@lru_cache
def processor_name() -> str:
    """Return the kind of processor, and the instruction set that torch uses."""
    return f"{processor_kind()} {torch.backends.cpu.get_cpu_capability()}"


@lru_cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Make torch use `count` threads within the `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
