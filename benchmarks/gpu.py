"""Time epochs on a device beside their matrix products, and count what a GPU waits for.

A borrowed GPU machine may have torch and NumPy and little else, so this needs these two alone. All
data is generated, in the right shapes.
"""

import re
import warnings
from argparse import BooleanOptionalAction
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.output import keep, parser_of, show
from benchmarks.training import device_seconds, new_trainer, synchronize, train_steps
from benchmarks.tvae import BATCH, SIZES, HouseCase, noisy_patches, tvae_config
from distvae.config import Config, from_dict
from distvae.data.dataset import Array
from distvae.files.untrusted import Plain
from distvae.numerics.noise import order
from distvae.train.batches import BLOCK
from distvae.train.loop import Trainer
from distvae.train.team import select_device

STEPS = 64
"""Steps in which products, launches and synchronisations are counted."""
EPOCHS = 1_000_000
"""Epochs in each configuration: more than a benchmark ever trains."""
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}
EVENTS = {"launches": r"cu(da)?(Launch\w*Kernel|GraphLaunch)", "copies": "Memcpy (HtoD|DtoH)"}
"""Patterns of the names that CUDA gives kernel launches, and copies between host and device."""
Shape = tuple[int, int, int, int]
"""The number of products in a batch, and the m, k and n of each."""


class Work(NamedTuple):
    """The configuration and the rows of a case."""

    config: Config
    rows: Array


def _config(model: Mapping[str, Plain], estep: Mapping[str, Plain], batch: int) -> Config:
    train = {"epochs": EPOCHS, "batch": batch, "schedule": "constant", "warmup": 0}
    return from_dict({"model": dict(model), "estep": dict(estep), "train": train})


def _tvae(case: HouseCase, rows: int) -> Work:
    """Return a case of TVAE on patches of a drawn scene."""
    data = noisy_patches(case, None)
    return Work(tvae_config(case, EPOCHS), data[order(0, 0, len(data))[:rows]])


def _bsc(rows: int) -> Work:
    """Return binary sparse coding with 300 fields, sized for natural patches and fitted by least
    squares.
    """
    model: dict[str, Plain] = {"kind": "tvae", "latent": 300, "hidden": []}
    model["linear_fit"] = "closed_form"
    search: dict[str, Plain] = {"kind": "evolution", "states": 100, "parents": 8, "children": 7}
    search["generations"] = 2
    data = np.random.default_rng(0).standard_normal((rows, 50), dtype=np.float32)
    return Work(_config(model, search, BATCH), data)


def _vsc(batch: int, rows: int) -> Work:
    """Return VSC of 784-400-200, as on MNIST."""
    net: dict[str, Plain] = {"hidden": [400], "activation": "relu"}
    model = {"kind": "vsc", "latent": 200, "likelihood": "bernoulli", "sharpness": 50, **net}
    data = np.random.default_rng(0).random((rows, 784), dtype=np.float32)
    return Work(_config(model, {"kind": "amortised", "input": "raw", **net}, batch), data)


def _sdm(batch: int, rows: int) -> Work:
    """Return SDM-VAE of the published sizes, as on power spectra of speech."""
    data = np.random.default_rng(0).standard_exponential((rows, 513), dtype=np.float32)
    return Work(_config({"kind": "sdm"}, {"kind": "amortised"}, batch), data)


def _ssc(latent: int, rows: int) -> Work:
    """Return a search for supports of 32 latents, on rows of 768 sums of random atoms."""
    model: dict[str, Plain] = {"kind": "ssc", "latent": latent, "limit": 32, "cycles": 0}
    draw = np.random.default_rng(0)
    atoms = draw.standard_normal((latent, 768), dtype=np.float32)
    chosen = draw.integers(latent, size=(rows, 32))
    data = np.stack([atoms[active].mean(0) for active in chosen])
    return Work(_config(model, {"kind": "selection"}, 4096), data)


CASES: dict[str, Callable[[int], Work]] = {
    "big": lambda rows: _tvae(SIZES["big"], rows),
    "s64": lambda rows: _tvae(SIZES["s64"], rows),
    "bsc": _bsc,
    "vsc-32": lambda rows: _vsc(32, rows),
    "vsc-512": lambda rows: _vsc(512, rows),
    "sdm-128": lambda rows: _sdm(128, rows),
    "sdm-1024": lambda rows: _sdm(1024, rows),
    "ssc-4096": lambda rows: _ssc(4096, rows),
    "ssc-16384": lambda rows: _ssc(16384, rows),
}
"""The cases by name. The name ends in the batch size if a case has several sizes."""


class Extent(NamedTuple):
    """The length of the training and its options."""

    rows: int = 60_000
    """Maximum number of rows."""
    epochs: int = 3
    """Epochs to time after a warm-up epoch; the fastest counts."""
    threads: int = 1
    graphs: bool = True
    """Record steps and replay them (`train.graphs`)."""
    tf32: bool = False
    """Multiply in TF32 (`train.tf32`)."""


def measure_case(name: str, device: torch.device, extent: Extent) -> dict[str, float]:
    """Return the measurements of a case.

    Seconds are per epoch, which ends with the validation of one block of rows. Operations,
    launches, copies and synchronisations are per step. Operations are counted in a step that is not
    replayed.
    """
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    config, rows = CASES[name](extent.rows)
    config = config.with_("train", threads=extent.threads, tf32=extent.tf32)
    recorded = config.with_("train", graphs=extent.graphs)
    trainer = new_trainer(recorded, rows, rows[:BLOCK], device)
    epoch = min(_epoch_seconds(trainer, extent.epochs))
    memory = {"peak_gb": torch.cuda.max_memory_allocated(device) / 1e9} if is_cuda else {}
    # A recorded step hides its operations.
    plain = new_trainer(config.with_("train", graphs=False), rows, rows[:BLOCK], device)
    with OperationCounter() as counter:
        steps = train_steps(plain, STEPS)
    shapes = counter.products
    products = replay_products(shapes, device) * trainer.batches / steps
    flops = 2 * sum(b * m * k * n for b, m, k, n in shapes)
    figures = {
        "rows": float(len(trainer.train)),
        "batch": float(trainer.config.batch),
        "epoch_s": epoch,
        "products_s": products,
        "ratio": epoch / products,
        "gflop": 1e-9 * flops * trainer.batches / steps,
        "rows_per_second": len(trainer.train) / epoch,
        "step_us": 1e6 * epoch / trainer.batches,
        "operations": counter.operations / steps,
    }
    return figures | memory | (gpu_events(trainer) if is_cuda else {})


def _epoch_seconds(trainer: Trainer, count: int) -> list[float]:
    """Return the seconds of each epoch, after a warm-up epoch that allocates memory and chooses
    kernels.
    """
    run = trainer.run()
    next(run)
    return [device_seconds(trainer.device, lambda: next(run)) for _ in range(count)]


class OperationCounter(TorchDispatchMode):
    """Counts the operations of torch, and records the shapes of matrix products."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.operations = 0
        self.products: list[Shape] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        self.operations += 1
        if func.overloadpacket in PRODUCTS:
            a, b = args[-2:]
            assert isinstance(a, Tensor)
            assert isinstance(b, Tensor)
            batch = (1,) * (3 - a.dim())
            self.products.append((*batch, *a.shape, b.shape[-1]))
        return func(*args, **(kwargs or {}))


def replay_products(shapes: Sequence[Shape], device: torch.device) -> float:
    """Return the seconds that matrix products of these shapes take, after one warm-up."""
    sizes = np.array([(b * m * k, b * k * n, b * m * n) for b, m, k, n in shapes]).max(axis=0)
    memory = [torch.randn(int(size), device=device) for size in sizes]
    operands = [_operands(memory, shape) for shape in shapes]

    def multiply() -> None:
        for a, b, c in operands:
            torch.matmul(a, b, out=c)

    multiply()
    return device_seconds(device, multiply)


def _operands(memory: Iterable[Tensor], shape: Shape) -> list[Tensor]:
    """Return two factors and the output of their product, as views of memory."""
    b, m, k, n = shape
    lead = (b,) if b > 1 else ()
    sides = [(*lead, m, k), (*lead, k, n), (*lead, m, n)]
    return [flat[: int(np.prod(side))].view(side) for flat, side in zip(memory, sides, strict=True)]


def gpu_events(trainer: Trainer) -> dict[str, float]:
    """Return the kernel launches, copies and forced synchronisations of a step on CUDA."""
    taken, synchronisations = _count_synchronisations(trainer)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as trace:  # avoids a warning
        traced = train_steps(trainer, STEPS)
        synchronize(trainer.device)
    counts = count_events({event.key: event.count for event in trace.key_averages()})
    figures = {name: count / traced for name, count in counts.items()}
    return figures | {"synchronisations": synchronisations / taken}


def _count_synchronisations(trainer: Trainer) -> tuple[int, int]:
    """Return the number of steps, and the number of warnings by torch that a step waits for the
    GPU.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            taken = train_steps(trainer, STEPS)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return taken, sum("synchronizing" in str(warning.message) for warning in caught)


def count_events(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the number of kernel launches and copies, from the counts of CUDA's events by name."""
    return {
        kind: sum(n for name, n in counts.items() if re.match(pattern, name))
        for kind, pattern in EVENTS.items()
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run as a program."""
    parser = parser_of("gpu", __doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    default = Extent()
    parser.add_argument("--rows", type=int, default=default.rows, help="rows at most")
    parser.add_argument("--epochs", type=int, default=default.epochs, help="epochs to time")
    parser.add_argument("--threads", type=int, default=default.threads, help="of the process")
    parser.add_argument(
        "--graphs", action=BooleanOptionalAction, default=True, help="record steps and replay them"
    )
    parser.add_argument("--tf32", action="store_true", help="multiply in TF32")
    parsed = parser.parse_args(words)
    for unknown in {*parsed.cases} - {*CASES}:
        parser.error(f"{unknown}: {', '.join(CASES)} expected")
    device = select_device(parsed.device)
    extent = Extent(*(getattr(parsed, name) for name in Extent._fields))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    settings = {**extent._asdict(), "device": name, "torch": torch.__version__}
    for case in parsed.cases or CASES:
        figures = measure_case(case, device, extent)
        text = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items())
        show(parsed, {"case": case, **settings, **figures}, f"{case} on {name}: {text}")
        row = f"gpu-{case}" if device.type == "cuda" else f"gpu-{case}-on-cpu"
        row += ("" if extent.graphs else "-without-graphs") + ("-tf32" if extent.tf32 else "")
        keep(parsed, row, figures, settings)


if __name__ == "__main__":
    main()
