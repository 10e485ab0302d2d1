"""What decides the last digits of a result: libraries, threads, precision, processor.

All of it is decided once, from settings and from what the processor can do, never by a stopwatch. A
training writes its decision down, and whoever goes on with it, or trains beside it, obeys that
decision or says why it cannot.
"""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Library = Literal["blas", "onednn"]
"""Who multiplies matrices on the CPU: torch's BLAS, which is MKL on x86, or oneDNN."""

PRECISE = 1e-5  # relative error of a product in float32; in bfloat16 it is 2e-3
SHAPES = ((1024, 512, 144), (32, 512, 512), (4096, 64, 64))
WIDE_AMD = 26  # the family of Zen 5, the first of AMD's cores to multiply 512 bits at once
PACKAGES = ("torch", "numpy", "numba")
VARIABLES = re.compile(
    r"MKL_(CBWR|ENABLE_INSTRUCTIONS)|ONEDNN_MAX_CPU_ISA|ATEN_CPU_CAPABILITY|NUMBA_(CPU|DISABLE)_\w+"
)
"""Variables of the environment that have a library compute otherwise than the processor suggests.
"""


@dataclass(frozen=True)
class Arithmetic:
    """How a training computes. Equal values give equal bits, for as many workers."""

    products: Library
    threads: int
    device: str
    """`cpu`, or the name of the GPU."""
    processor: str
    versions: Mapping[str, str]
    variables: Mapping[str, str]

    @classmethod
    def of_process(cls, products: Library, threads: int, device: torch.device) -> "Arithmetic":
        """Return how this process computes with a library and a number of threads."""
        variables = {
            name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)
        }
        return cls(products, threads, _name(device), processor_name(), _versions(), variables)

    @classmethod
    def current(cls, device: torch.device) -> "Arithmetic":
        """Return how torch computes at this moment."""
        asked = torch.get_float32_matmul_precision() == "medium"
        return cls.of_process("onednn" if asked else "blas", torch.get_num_threads(), device)

    def apply(self) -> None:
        """Have torch compute like this from here on."""
        torch.set_num_threads(self.threads)
        # torch asks oneDNN where products may be of bfloat16; a processor that lacks these takes
        # float32 all the same.
        torch.set_float32_matmul_precision("medium" if self.products == "onednn" else "highest")
        if self.device != "cpu":
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have torch compute like this, and as before afterwards."""
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        self.apply()
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)

    def facts(self) -> dict[str, str | int]:
        """Return all of it by name, as it is written down and compared."""
        plain = {"products": self.products, "threads": self.threads, "device": self.device}
        return plain | {"processor": self.processor, **self.versions, **self.variables}

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """Return what differs from recorded facts, in words."""
        own = self.facts()
        if (
            self.device != "cpu" and recorded.get("device") == self.device
        ):  # then the CPU multiplies nothing
            own, recorded = (
                {k: v for k, v in facts.items() if k != "processor"} for facts in (own, recorded)
            )
        names = [*recorded, *(name for name in own if name not in recorded)]
        return [
            f"{name} {own.get(name, 'not set')} instead of {recorded.get(name, 'not set')}"
            for name in names
            if own.get(name) != recorded.get(name)
        ]


def choose_library(setting: str, recorded: Mapping[str, Any] | None = None) -> Library:
    """Return who multiplies matrices: what a setting says, or for `auto` what was recorded, or else
    suits this CPU.
    """
    wanted = (recorded or {}).get("products") if setting == "auto" else setting
    if wanted is None:
        wanted = "onednn" if suits_onednn(processor_name()) else "blas"
    return "onednn" if wanted == "onednn" and onednn_is_precise() else "blas"


def suits_onednn(name: str) -> bool:
    """Return whether oneDNN is much the faster library on a processor.

    On AMD's cores MKL multiplies 256 bits at a time; from Zen 5 on, they can do 512.
    """
    found = re.match(r"AuthenticAMD family (\d+)", name)
    return found is not None and int(found[1]) >= WIDE_AMD and "AVX512" in name


@lru_cache
def onednn_is_precise() -> bool:
    """Return whether oneDNN's products have the precision of float32 on this processor, when asked
    by `obey`.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    draws = torch.Generator().manual_seed(0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        operands = [
            (torch.randn(m, k, generator=draws), torch.randn(k, n, generator=draws))
            for m, k, n in SHAPES
        ]
        return all(max(error(a, b), error(b.T, a.T)) < PRECISE for a, b in operands)
    finally:
        torch.set_float32_matmul_precision(before)


def error(a: Tensor, b: Tensor) -> float:
    """Return the error of a product relative to its norm."""
    true = a.double() @ b.double()
    return float((a @ b - true).norm() / true.norm())


@lru_cache
def processor_name() -> str:
    """Return the kind of processor, and which of its instructions torch uses."""
    return f"{_kind()} {torch.backends.cpu.get_cpu_capability()}"


def _kind() -> str:
    """Return vendor, family and model, or what the system calls the processor where it does not
    tell these.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "vendor_id" not in told:
        return (
            " ".join(told.get(name, "") for name in ("CPU implementer", "CPU part")).strip()
            or platform.machine()
        )
    return f"{told['vendor_id']} family {told.get('cpu family')} model {told.get('model')}"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _versions() -> dict[str, str]:
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Have torch use so many threads, and the former number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
