"""The programs that the benchmarks know how to train, and how their checkouts are recognised.

None of their code is part of this package. A checkout is imported from the folder that the user
names, unmodified, in a process of its own.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from distvae.bench.beside.turns import Start, Trained, Turn
from distvae.files.provenance import commit
from distvae.files.refusal import Refusal

T = TypeVar("T")


@dataclass(frozen=True)
class Peer:
    """A program that trains a model as ours does."""

    name: str
    about: str
    """What it is, and where it is found."""
    benchmark: str
    """The benchmark that times it."""
    files: tuple[str, ...]
    """Files that a checkout of it has."""
    packages: tuple[str, ...] = ()
    """Packages that it imports and ours need not have."""
    folder: str = ""
    """The folder of a checkout that holds its package."""
    built: dict[str, str] = field(default_factory=dict)
    """Patterns of files that are compiled in a checkout, and the command that does so."""

    def is_in(self, checkout: Path) -> bool:
        """Return whether a folder is a checkout of it."""
        return all((checkout / file).is_file() for file in self.files)

    def version(self, checkout: Path) -> str:
        """Return its name and the commit of the checkout, if that is known."""
        return " ".join([self.name, *filter(None, [commit(checkout / self.files[0])])])


TVO = Peer(
    "tvo",
    "TVAE by its authors, github.com/tvlearn/tvo",
    "tvae",
    ("tvo/models/tvae.py", "tvo/trainer/Trainer.py", "tvo/variational/evo.py"),
    ("h5py", "munch"),
    built={"tvo/variational/_set_redundant_lpj_to_low_CPU*.so": "python setup.py build_ext -i"},
)
VSC = Peer(
    "vsc",
    "the reproduction of VSC, github.com/Alfo5123/Variational-Sparse-Coding",
    "steps",
    ("src/models/vsc.py", "src/models/base_model.py"),
    ("pandas", "tqdm"),
)
PYTHAE = Peer(
    "pythae",
    "github.com/clementchadebec/benchmark_VAE",
    "steps",
    ("src/pythae/models/vae/vae_model.py", "src/pythae/trainers/base_trainer/base_trainer.py"),
    ("cloudpickle", "imageio", "pydantic", "scipy", "sklearn", "tqdm"),
    folder="src",
)
PEERS = (TVO, VSC, PYTHAE)


def recognise(checkout: Path, benchmark: str) -> Peer:
    """Return the peer in a folder.

    Raise `Refusal` if there is none that this benchmark times, or if it cannot be imported.
    """
    for peer in PEERS:
        if peer.is_in(checkout):
            _check_benchmark(peer, checkout, benchmark)
            _check_packages(peer, checkout)
            return peer
    known = "; ".join(f"{peer.name} ({peer.about})" for peer in PEERS)
    raise Refusal(f"--beside {checkout}: a checkout of one of these expected: {known}")


def _check_benchmark(peer: Peer, checkout: Path, benchmark: str) -> None:
    if peer.benchmark != benchmark:
        others = [other.name for other in PEERS if other.benchmark == benchmark]
        raise Refusal(
            f"--beside {checkout}: {peer.name}, which 'distvae bench {peer.benchmark}' times;"
            f" {' or '.join(others)} expected"
        )


def _check_packages(peer: Peer, checkout: Path) -> None:
    missing = [package for package in peer.packages if find_spec(package) is None]
    if missing:
        raise Refusal(
            f"--beside {checkout}: {peer.name} needs packages that are not installed:"
            f" {', '.join(missing)}"
        )
    for pattern, command in peer.built.items():
        if not any(checkout.glob(pattern)):
            raise Refusal(
                f"--beside {checkout}: a part of {peer.name} is not compiled yet; '{command}' in"
                " that folder compiles it, and needs cython"
            )


@dataclass(frozen=True)
class Imported:
    """Prepares the training of a peer, whose failures become refusals that name it."""

    peer: Peer
    checkout: Path
    start: Start

    def __call__(self) -> Turn:
        """Import the peer, and prepare its training. Nothing is shown of what it prints."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        sys.path.insert(0, str(self.checkout / self.peer.folder))
        turn = self._guard(self.start)

        def guarded(number: int) -> Trained:
            return self._guard(lambda: turn(number))

        return guarded

    def _guard(self, function: Callable[[], T]) -> T:
        """Call a function of the peer."""
        try:
            return function()
        except Exception as error:
            raise Refusal(
                f"--beside {self.checkout}: {self.peer.name} has failed: {type(error).__name__}:"
                f" {error}"
            ) from error
