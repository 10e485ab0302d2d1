"""Imports point one way, commands start light, and the core needs torch and NumPy alone."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import distvae

PACKAGE = Path(distvae.__file__).parent
LAYERS = [
    ("numerics", "files"),
    ("interface",),
    ("config",),
    ("data",),
    ("models",),
    ("estep",),
    ("train",),
    ("track",),
    ("machines",),
    ("tasks",),
    ("tune",),
    ("report",),
    ("bench", "reproduce"),
    ("commands",),
    ("cli",),
    ("__main__",),
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = (
    "torch",
    "ray",
    "mlflow",
    "optuna",
    "librosa",
    "matplotlib",
    "pandas",
    "pyarrow",
    "numpy",
    "yaml",
    "jinja2",
)
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The modules of this package that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.partition(".")[0] == "distvae"
        ):
            yield from (
                [f"distvae.{alias.name}" for alias in node.names]
                if node.module == "distvae"
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("distvae."))


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_point_one_way(file: str) -> None:
    own = file.removesuffix(".py").partition("/")[0]
    for module in imported(PACKAGE / file):
        other = module.split(".")[1]
        assert other == own or LEVEL[other] < LEVEL[own], f"{file} imports {module}"


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMANDS = [
    "",
    "--version",
    "train",
    "evaluate",
    "resynthesize",
    "encode",
    "sample",
    "show",
    "recipes",
    "spaces",
    "tune",
    "bench",
    "bench sweep",
    "bench gpu",
    "results",
    "peer",
    "report",
    "denoise",
    "inpaint",
    "runs",
    "sync",
    "ui",
    "doctor",
    "serve",
    "data",
    "data check",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    loaded = in_a_new_process(
        "import sys\nfrom distvae.cli import app\n"
        f"try: app({[*command.split(), '--help']!r})\nexcept SystemExit: pass\n"
        "print('LOADED', *sorted(sys.modules))"
    )
    modules = loaded.rpartition("LOADED")[2].split()
    assert not {name for name in modules if name.partition(".")[0] in HEAVY}


BARE = [
    "yaml",
    "typer",
    "rich",
    "safetensors",
    "pyarrow",
    "pandas",
    "librosa",
    "soundfile",
    "soxr",
    "pystoi",
    "pesq",
]
BARE += ["matplotlib", "optuna", "ray", "mlflow", "scipy", "sklearn"]


def test_the_core_needs_torch_and_numpy_alone() -> None:
    """A bare GPU machine has no more: interface, models, E-steps and the loop must train there."""
    in_a_new_process(
        f"""
import sys
sys.modules.update(dict.fromkeys({BARE!r}))  # importing one of these fails from here on
import numpy as np
from distvae.config import from_dict
from distvae.estep import assemble
from distvae.train.loop import Trainer
config = from_dict({{"train": {{"epochs": 1, "batch": 8}}}})
x = np.random.default_rng(0).random((32, 10), dtype=np.float32)
assert len(list(Trainer(config.train, *assemble(config, 10), x, x).run())) == 1
"""
    )


@pytest.mark.slow
def test_the_benchmark_of_gpus_needs_torch_and_numpy_alone() -> None:
    """It runs where a GPU is lent, without the command line."""
    words = ["sdm-1024", "--device", "cpu", "--rows", "1024", "--epochs", "1", "--json"]
    told = in_a_new_process(
        f"""
import sys
sys.modules.update(dict.fromkeys({[*BARE, "numba", "PIL", "jinja2"]!r}))
from distvae.bench.gpu import main
main({words!r})
"""
    )
    assert json.loads(told)["epoch_s"] > 0
