"""The names that the package uses from Ray, Optuna and MLflow exist, and the locked packages fulfil
`pyproject.toml`.
"""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from tests.laws.test_imports import FILES, imports_of, packages, parsed

ROOT = Path(__file__).parents[2]
LIBRARIES = {"ray", "optuna", "mlflow"}


def dotted(node: ast.AST, meanings: dict[str, str]) -> str:
    """The dotted name that an expression stands for, or nothing."""
    match node:
        case ast.Name(id=name):
            return meanings.get(name, "")
        case ast.Attribute(value=value, attr=attribute):
            owner = dotted(value, meanings)
            return owner and f"{owner}.{attribute}"
    return ""


def used(file: str) -> Iterator[str]:
    """Yield the dotted names that a file uses of the modules that it imports, wherever it does."""
    meanings = {}
    for node in imports_of(file):
        for each in node.names:
            if isinstance(node, ast.Import):
                package = each.name.partition(".")[0]
                meanings[each.asname or package] = each.name if each.asname else package
                yield each.name
            elif not node.level:
                meanings[each.asname or each.name] = name = f"{node.module}.{each.name}"
                yield name
    yield from filter(None, (dotted(node, meanings) for node in ast.walk(parsed(file))))


def missing(name: str) -> str:
    """The first part of a dotted name that does not exist, or nothing. What only an instance has
    is not looked for.
    """
    module, *rest = name.split(".")
    found: object = importlib.import_module(module)
    path = module
    for part in rest:
        path = f"{path}.{part}"
        if not isinstance(found, type | ModuleType):
            return ""
        if not hasattr(found, part):
            try:
                importlib.import_module(path)
            except ImportError:
                return path
        found = getattr(found, part)
    return ""


@pytest.mark.slow
def test_every_name_that_is_used_of_a_library_exists() -> None:
    users = [file for file in FILES if packages(imports_of(file)) & LIBRARIES]
    names = {name for file in users for name in used(file)}
    for library in LIBRARIES:
        of_library = {name for name in names if name.partition(".")[0] == library}
        assert len(of_library) > 10
        assert {missing(name) for name in of_library} - {""} == set()


OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Public names, in spite of how they begin."""


def test_no_private_name_of_a_dependency_is_used() -> None:
    """A name that begins with an underscore is defined in this package."""
    asked, defined = set[str](), set[str]()
    for file in FILES:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Attribute):
                (defined if isinstance(node.ctx, ast.Store) else asked).add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or ""
                if not module.startswith("_typeshed"):
                    names = [module, *(each.name for each in node.names)]
                    asked |= {part for name in names for part in name.split(".")}
    private = {name for name in asked if re.match("_[^_]", name)}
    assert private - defined - OF_NAMED_TUPLES == set()


def test_the_locked_versions_are_those_that_are_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.lock").read_text().lower().replace("_", "-").splitlines()
    locked = dict(line.split("==") for line in lines if "==" in line)
    optional = project["optional-dependencies"]
    extras = [text for extra in ("speech", "tune", "sklearn", "dev") for text in optional[extra]]
    for wanted in map(Requirement, project["dependencies"] + extras):
        if wanted.name != project["name"]:
            version = locked[wanted.name.lower().replace("_", "-")]
            assert version in wanted.specifier, f"{wanted}: {version} is locked"
        if wanted.name in LIBRARIES:
            assert {each.operator for each in wanted.specifier} == {">=", "<"}, wanted.name
