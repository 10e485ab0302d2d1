"""A trained model as `mlflow.pyfunc.load_model` opens it. Nothing is unpickled.

Logged models name this module, so it has to keep its name.
"""

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from distvae.train.run import Array, Run

Output = Literal["codes", "reconstruction"]
PACKAGES = ("distvae", "torch", "numpy")
DATA = "run"
"""The folder in a logged model that opens as a run folder."""
NEEDED = ("run.json", "config.yaml", "best.json")
"""The files in it that describe the weights."""
HISTORY = ("epochs.jsonl", "events.jsonl")
"""The files in it with the history of training."""


class Served:
    """A model that returns the codes of rows, or their reconstruction."""

    def __init__(self, run: "Run") -> None:
        self.run = run

    def predict(self, rows: ArrayLike, params: dict[str, Output] | None = None) -> "Array":
        """Return (N, H) codes of (N, D) rows, or with params={"give": "reconstruction"} (N, D)."""
        codes = self.run.encode(np.asarray(rows, np.float32))
        output = (params or {}).get("give", "codes")
        return self.run.decode(codes) if output == "reconstruction" else codes


def _load_pyfunc(path: str) -> Served:
    """Open the folder of a run. MLflow calls this function by its name."""
    from distvae.train.run import Run

    return Served(Run.open(path))


def pack(run: Path, folder: Path) -> Path:
    """Write a model into a folder as MLflow stores it: weights, settings, history and loader."""
    from mlflow.models import Model

    data = folder / DATA
    data.mkdir()
    files = [*sorted(run.glob("best-*")), *(run / name for name in NEEDED)]
    files += [run / name for name in HISTORY if (run / name).is_file()]
    for path in files:
        shutil.copy(path, data)
    model = Model(signature=_signature(run))
    model.add_flavor(
        "python_function",
        loader_module=__name__,
        data=DATA,
        python_version=platform.python_version(),
    )
    model.save(str(folder / "MLmodel"))
    # a build such as +cpu is in no public registry
    versions = {name: version(name).partition("+")[0] for name in PACKAGES}
    requirements = "".join(f"{name}=={number}\n" for name, number in versions.items())
    (folder / "requirements.txt").write_text(requirements)
    return folder


def _signature(run: Path) -> "ModelSignature":
    """Return the shapes of input and output."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    width = int(json.loads((run / "run.json").read_bytes())["dims"])
    rows = TensorSpec(np.dtype(np.float32), (-1, width))
    out = TensorSpec(np.dtype(np.float32), (-1, -1))
    give = ParamSpec("give", DataType.string, "codes")
    return ModelSignature(Schema([rows]), Schema([out]), ParamSchema([give]))
