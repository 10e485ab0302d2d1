"""After a kill in any phase, training continues to the result of an undisturbed training."""

import ast
import json
import os
from pathlib import Path

import pytest

import distvae
from tests.train.commands import TORCHRUN, run
from tests.train.kills import KINDS, RECIPE, WANTED, Ordeal, Plan, recorded
from tests.train.processes import PHASES, spied

FEW = [19, *(pytest.param(seed, marks=pytest.mark.long) for seed in (26, 5))]
"""Seeds that kill a worker, a shard and the driver, the latter two at length only. That a machine
goes is in `test_losses`.
"""
MANY = 100


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training in which nothing was killed."""
    if (seen := spied(os.getpid())).returncode:
        pytest.skip(f"py-spy may not look at other processes here: {seen.stderr}")
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(TORCHRUN, RECIPE, out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("seed", FEW)
def test_training_ends_as_if_nobody_had_been_killed(
    seed: int, undisturbed: Path, tmp_path: Path
) -> None:
    ordeal = Ordeal(Plan.of(seed), tmp_path / "run")
    ordeal.survive()
    assert ordeal.hit
    assert ordeal.hit.counts
    ordeal.compare(undisturbed)


@pytest.mark.long
def test_a_hundred_kills_in_all_phases(undisturbed: Path, tmp_path: Path) -> None:
    """Continue with the file that DISTVAE_KILLS names, if it has some kills already."""
    file = Path(os.environ.get("DISTVAE_KILLS", tmp_path / "kills.jsonl"))
    file.touch()
    kills = [json.loads(line) for line in file.read_text().splitlines()]
    for seed in range(len(kills), MANY * 2):
        if sum(kill["counts"] for kill in kills) == MANY:
            break
        kills.append(recorded(Plan.of(seed), tmp_path / f"{seed}", undisturbed))
        with file.open("a") as lines:
            lines.write(json.dumps(kills[-1]) + "\n")
    counted = [kill for kill in kills if kill["counts"]]
    assert [kill for kill in counted if kill["outcome"] != "same"] == []
    assert len(counted) == MANY
    assert {kill["phase"] for kill in counted} >= set(WANTED)
    assert {kill["kind"] for kill in counted} == set(KINDS)


ROOT = Path(distvae.__file__).parents[1]
OWN = {name: entry for name, entry in PHASES.items() if entry[0].startswith("distvae/")}


@pytest.mark.parametrize("phase", OWN)
def test_every_phase_is_found_in_its_file(phase: str) -> None:
    file, names = OWN[phase]
    tree = ast.parse((ROOT / file).read_text())
    assert names <= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
