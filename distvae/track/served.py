"""A logged model as `mlflow.pyfunc.load_model` opens it: weights and configuration are read,
nothing is unpickled.
"""

import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from distvae.train.run import Array, Run

Given = Literal["codes", "reconstruction"]
PACKAGES = ("distvae", "torch", "numpy")
DATA = "run"
"""The folder of a logged model that opens as that of a run."""
NEEDED = ("run.json", "config.yaml", "best.json")
"""The files there that say what the weights beside them are."""
HISTORY = ("epochs.jsonl", "events.jsonl")
"""And those that tell how training went."""


class Served:
    """Codes of rows, or what the model makes of them."""

    def __init__(self, run: "Run") -> None:
        self.run = run

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> "Array":
        """(N, D) -> (N, H) codes, or with params={"give": "reconstruction"} (N, D)."""
        codes = self.run.encode(np.asarray(rows, np.float32))
        give: Given = (params or {}).get("give", "codes")
        return self.run.decode(codes) if give == "reconstruction" else codes


def _load_pyfunc(path: str) -> Served:
    """What MLflow calls, with the folder of the run."""
    from distvae.train.run import Run

    return Served(Run.open(path))


def pack(run: Path, folder: Path) -> Path:
    """Fill a folder with a model as MLflow keeps it: the run's weights, settings and history, and
    what opens them.
    """
    from mlflow.models import Model

    data = folder / DATA
    data.mkdir()
    told = [run / name for name in HISTORY if (run / name).is_file()]
    for path in [*sorted(run.glob("best-*")), *(run / name for name in NEEDED), *told]:
        shutil.copy(path, data)
    model = Model(signature=_signature(run))
    model.add_flavor(
        "python_function",
        loader_module=__name__,
        data=DATA,
        python_version=platform.python_version(),
    )
    model.save(str(folder / "MLmodel"))
    (folder / "requirements.txt").write_text(
        "".join(f"{name}=={version(name)}\n" for name in PACKAGES)
    )
    return folder


def _signature(run: Path) -> Any:
    """What goes in and comes out."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    from distvae.train.run import read_info

    rows = TensorSpec(np.dtype(np.float32), (-1, int(read_info(run)["dims"])))
    out = TensorSpec(np.dtype(np.float32), (-1, -1))
    give = ParamSpec("give", DataType.string, "codes")
    return ModelSignature(Schema([rows]), Schema([out]), ParamSchema([give]))
