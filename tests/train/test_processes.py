"""The phases in which trainings are killed name functions that exist."""

import ast
from pathlib import Path

import pytest

import distvae
from tests.train.processes import PHASES

ROOT = Path(distvae.__file__).parents[1]
OWN = {name: entry for name, entry in PHASES.items() if entry[0].startswith("distvae/")}


@pytest.mark.parametrize("phase", OWN)
def test_every_phase_is_found_in_its_file(phase: str) -> None:
    file, names = OWN[phase]
    tree = ast.parse((ROOT / file).read_text())
    assert names <= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
