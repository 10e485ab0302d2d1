"""A card says what the run folder says, to people and to programs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import distvae
from distvae.numerics.numbers import shown
from distvae.share.card import Card

MOST = 5000
"""Characters that MLflow's registry takes as a description."""


def test_the_figures_are_those_of_the_evaluation(run: Path) -> None:
    text = Card(run).text
    assert "| pesq_wb | 2.500 ± 0.250 | perceptual quality" in text
    assert "| hoyer | 0.5000 |" in text
    assert "| stoi" not in text
    assert "| pesq_wb_std" not in text


def test_it_names_the_data_and_the_program_of_the_run(run: Path) -> None:
    info, text = json.loads((run / "run.json").read_text()), Card(run).text
    assert info["data"] in text
    assert info["data_digest"] in text
    assert f"{info['rows']['train']:,} train" in text
    assert f"distvae {info['versions']['distvae']}" in text
    assert len(text) < MOST


def test_it_gives_the_validation_bound_of_the_weights_that_were_kept(run: Path) -> None:
    epochs = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    best = max(epochs, key=lambda epoch: epoch["val_objective"])
    assert f"Bound on validation data: {shown(best['val_bound'])} nats" in Card(run).text


def test_the_hub_reads_its_fields(run: Path) -> None:
    _, fields, text = str(Card(run)).split("---\n", 2)
    assert text.strip() == Card(run).text.strip()
    assert yaml.safe_load(fields)["tags"][1] == distvae.load(run).config.model.kind


def test_the_program_in_it_gives_the_shapes_that_it_says(run: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", Card(run).text, re.DOTALL)
    x = np.ones((3, distvae.load(run).dims), np.float32)
    names: dict[str, Any] = {"FOLDER": str(run), "x": x}
    exec(program, names)
    shapes = re.findall(r"\(rows, (\d+)\) -> \(rows, (\d+)\)", program)
    for name, (_, width) in zip(("codes", "again"), shapes, strict=True):
        assert np.shape(names[name]) == (3, int(width))


def test_a_name_of_data_stays_in_its_cell(run: Path) -> None:
    info = json.loads((run / "run.json").read_text()) | {"data": "a | b\n# c"}
    (run / "run.json").write_text(json.dumps(info))
    (line,) = [line for line in Card(run).text.splitlines() if line.startswith("| data |")]
    assert line.startswith(r"| data | a \| b # c, ")


def test_it_is_made_without_torch(run: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from distvae.share.card import Card;"
        f" str(Card(Path({str(run)!r}))); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
