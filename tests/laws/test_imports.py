"""Imports point one way, Ray and MLflow stay in their subpackages, commands start light, and the
core needs torch and NumPy alone.
"""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import distvae

PACKAGE = Path(distvae.__file__).parent
ORDER = """system, numerics files, interface, config, data, models, engines, estep, train, share,
track, machines, tasks, tune estimators, report, reproduce, cli, interactive, __main__"""
LAYERS = [tuple(row.split()) for row in ORDER.split(",")]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
MODULES = {
    f"distvae.{file.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__"): file
    for file in FILES
}


@cache
def parsed(file: str) -> ast.Module:
    """A file of the package."""
    return ast.parse((PACKAGE / file).read_text())


def is_named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


Imports = Iterator[ast.Import | ast.ImportFrom]


def imports_of(file: str, at_import_only: bool = False) -> Imports:
    """Yield the import statements of a file, or only those that run when the file is imported: not
    those in functions and for types.
    """
    waiting: list[ast.AST] = [*parsed(file).body]
    while waiting:
        node = waiting.pop()
        for_types = isinstance(node, ast.If) and is_named(node.test, "TYPE_CHECKING")
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if at_import_only and (for_types or is_function):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting.extend(getattr(node, block, ()))


def imported(file: str) -> set[str]:
    """The modules of this package, or names in them, that a file imports anywhere."""
    found = set()
    for node in imports_of(file):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("distvae.")}
        elif f"{node.module}.".startswith("distvae."):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_point_one_way_and_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {}
    for module, file in MODULES.items():
        names = imported(file)
        graph[module] = {name if name in MODULES else name.rpartition(".")[0] for name in names}
        graph[module].discard(module)
        own = file.removesuffix(".py").partition("/")[0]
        for name in names if module != "distvae" else ():
            other = name.split(".")[1]
            assert other == own or LEVEL[other] < LEVEL[own], f"{file} imports {name}"
    graphlib.TopologicalSorter(graph).prepare()


HOMES = {"ray": ("machines", "tune"), "mlflow": ("track",)}
"""The subpackages that import a package."""
SUBCLASSES = {"distvae.tune.ray_tune": "tune/ray_tune.py"}
"""The only file that imports Ray at its top: its classes derive from Ray's."""


def packages(nodes: Imports) -> set[str]:
    """The first parts of the modules that import statements name."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_ray_and_mlflow_are_imported_in_their_rooms_and_inside_functions() -> None:
    for file in FILES:
        home = file.partition("/")[0]
        for package in packages(imports_of(file)) & HOMES.keys():
            assert home in HOMES[package], f"{file} imports {package}"
        if file not in SUBCLASSES.values():
            top = list(imports_of(file, at_import_only=True))
            assert not packages(iter(top)) & HOMES.keys(), f"{file} imports them at its top"
            modules = {node.module for node in top if isinstance(node, ast.ImportFrom)}
            assert not SUBCLASSES.keys() & modules, file


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMANDS = """, --version, train, evaluate, resynthesize, encode, sample, show, recipes, settings,
cite, cluster, cluster init, tune, baseline, report, denoise, inpaint, runs, push, ui, doctor,
serve, data, data check"""
HEAVY = (
    *("torch", "ray", "mlflow", "optuna", "librosa", "matplotlib"),
    *("pandas", "pyarrow", "numpy", "yaml", "jinja2"),
)


def test_help_imports_nothing_heavy() -> None:
    """One process asks every command in turn, and names the first that loads something heavy."""
    loaded = in_a_new_process(
        f"""
import contextlib, io, sys
from distvae.cli import app
for command in {COMMANDS!r}.split(","):
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        app([*command.split(), "--help"])
    assert "Usage" in shown.getvalue() or "--version" in command, command
    heavy = {{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r})
    assert not heavy, (command, heavy)
print("all light")
"""
    )
    assert loaded == "all light\n"


MISSING = """yaml typer rich safetensors pyarrow pandas librosa soundfile soxr pystoi pesq
matplotlib optuna ray mlflow scipy sklearn numba PIL jinja2"""
LIGHT = "system interface numerics files config data models engines estep train"
COMPILED = {"engines/tvae_cpu.py", "estep/kernels.py", "models/kernels.py"}
COMPILED |= {"models/table_decoder.py", "models/support_loops.py"}
"""Need Numba, and are imported inside functions where there is Numba."""


@pytest.mark.slow
def test_the_core_is_imported_and_trains_with_torch_and_numpy_alone() -> None:
    """A bare GPU machine has no more. All further packages are imported where they are used."""
    assert set(FILES) >= COMPILED
    light = [
        module
        for module, file in MODULES.items()
        if file.removesuffix(".py").partition("/")[0] in LIGHT.split() and file not in COMPILED
    ]
    in_a_new_process(
        f"""
import importlib, sys
sys.modules.update(dict.fromkeys({MISSING.split()!r}))  # importing one of these fails from here on
for module in {light!r}: importlib.import_module(module)
import numpy as np
from distvae.config import from_dict
from distvae.estep import assemble
from distvae.train.loop import Trainer
config = from_dict({{"train": {{"epochs": 1, "batch": 8}}}})
x = np.random.default_rng(0).random((32, 10), dtype=np.float32)
assert len(list(Trainer(config.train, *assemble(config, 10), x, x).run())) == 1
"""
    )


@pytest.mark.long
def test_the_benchmark_of_gpus_needs_torch_and_numpy_alone() -> None:
    """It runs where a GPU is lent, without the command line."""
    words = ["sdm-1024", "--device", "cpu", "--rows", "1024", "--epochs", "1", "--json"]
    output = in_a_new_process(
        f"""
import sys
sys.modules.update(dict.fromkeys({MISSING.split()!r}))
from benchmarks.gpu import main
main({words!r})
"""
    )
    assert json.loads(output)["epoch_s"] > 0
