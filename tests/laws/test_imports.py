"""Imports point one way, Ray and MLflow stay in their subpackages, commands start light, and the
core needs torch and NumPy alone.
"""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import distvae

PACKAGE = Path(distvae.__file__).parent
LAYERS = [
    ("system",),
    ("numerics", "files"),
    ("interface",),
    ("config",),
    ("data",),
    ("models",),
    ("engines",),
    ("estep",),
    ("train",),
    ("share",),
    ("track",),
    ("machines",),
    ("tasks",),
    ("tune", "estimators"),
    ("report",),
    ("reproduce",),
    ("cli",),
    ("interactive",),
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


@cache
def parsed(file: str) -> ast.Module:
    """A file of the package."""
    return ast.parse((PACKAGE / file).read_text())


def statements_at_import(file: str) -> Iterator[ast.AST]:
    """Yield the code that runs when a file is imported, without functions and imports for types."""
    waiting: list[ast.AST] = [*parsed(file).body]
    while waiting:
        node = waiting.pop()
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if not for_types and not is_function:
            yield node
            waiting.extend(ast.iter_child_nodes(node))


@cache
def imported(file: str) -> set[str]:
    """The modules of this package, or names in them, that a file imports anywhere."""
    found = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("distvae."):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("distvae.")}
    return found


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    dotted = {file.removesuffix(".py").replace("/", "."): file for file in FILES}
    modules = {f"distvae.{name}".removesuffix(".__init__"): file for name, file in dotted.items()}
    graph = {}
    for module, file in modules.items():
        names = imported(file)
        graph[module] = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module].discard(module)
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_point_one_way(file: str) -> None:
    own = file.removesuffix(".py").partition("/")[0]
    for module in imported(file):
        other = module.split(".")[1]
        assert other == own or LEVEL[other] < LEVEL[own], f"{file} imports {module}"


HOMES = {"ray": ("machines", "tune"), "mlflow": ("track",)}
"""The subpackages that import a package."""
SUBCLASSES = ("tune/ray_tune.py",)
"""The only file that imports Ray at its top: its classes derive from Ray's."""


def packages(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The packages of others that import statements name."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


@pytest.mark.parametrize("file", FILES)
def test_ray_and_mlflow_are_imported_in_their_rooms_and_inside_functions(file: str) -> None:
    home = file.partition("/")[0]
    for package in set(packages(ast.walk(parsed(file)))) & set(HOMES):
        assert home in HOMES[package], f"{file} imports {package}"
    if file not in SUBCLASSES:
        top = list(statements_at_import(file))
        assert not set(packages(top)) & set(HOMES), f"{file} imports them at its top"
        modules = [node.module for node in top if isinstance(node, ast.ImportFrom)]
        for home in SUBCLASSES:
            assert f"distvae.{home[:-3]}".replace("/", ".") not in modules


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
    "cite",
    "cluster",
    "cluster init",
    "tune",
    "peer",
    "report",
    "denoise",
    "inpaint",
    "runs",
    "push",
    "ui",
    "doctor",
    "serve",
    "data",
    "data check",
]


def test_help_imports_nothing_heavy() -> None:
    """One process asks every command in turn, and names the first that loads something heavy."""
    loaded = in_a_new_process(
        f"""
import contextlib, io, sys
from distvae.cli import app
for command in {COMMANDS!r}:
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        app([*command.split(), "--help"])
    assert "Usage" in shown.getvalue() or command == "--version", command
    heavy = {{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r})
    assert not heavy, (command, heavy)
print("all light")
"""
    )
    assert loaded == "all light\n"


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


LIGHT = [
    "system",
    "interface",
    "numerics",
    "files",
    "config",
    "data",
    "models",
    "engines",
    "estep",
    "train",
]
WITH_COMPILER = {
    "distvae.engines.tvae_cpu",
    "distvae.estep.kernels",
    "distvae.models.kernels",
    "distvae.models.table_decoder",
}
"""Need Numba, and are imported inside functions where there is Numba."""


def test_light_rooms_import_with_torch_and_numpy_alone() -> None:
    """They import all further packages where they use them."""
    modules = [
        f"distvae.{file.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")
        for file in FILES
        if file.removesuffix(".py").partition("/")[0] in LIGHT
    ]
    assert set(modules) >= WITH_COMPILER
    modules = [module for module in modules if module not in WITH_COMPILER]
    missing = [*BARE, "numba", "PIL", "jinja2"]
    in_a_new_process(
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({missing!r}))\n"
        f"for module in {modules!r}: importlib.import_module(module)"
    )


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


@pytest.mark.long
def test_the_benchmark_of_gpus_needs_torch_and_numpy_alone() -> None:
    """It runs where a GPU is lent, without the command line."""
    words = ["sdm-1024", "--device", "cpu", "--rows", "1024", "--epochs", "1", "--json"]
    output = in_a_new_process(
        f"""
import sys
sys.modules.update(dict.fromkeys({[*BARE, "numba", "PIL", "jinja2"]!r}))
from benchmarks.gpu import main
main({words!r})
"""
    )
    assert json.loads(output)["epoch_s"] > 0
