"""A trained model as `mlflow.pyfunc.load_model` opens it. Nothing is unpickled.

Logged models name this module, so it has to keep its name.
"""

import json
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from distvae.config.schema import check_value
from distvae.files.refusal import Refusal
from distvae.files.untrusted import check_plain, read_json, refuse_strange_entries
from distvae.share.card import Card, summaries
from distvae.share.names import CARD
from distvae.share.wheel import write_wheel
from distvae.track.facts import run_info

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

    from distvae.data.dataset import Array
    from distvae.train.documents import RunInfo
    from distvae.train.run import Run

Output = Literal["codes", "reconstruction"]
DATA = "run"
"""The folder in a logged model that opens as a run folder."""
NEEDED = ("run.json", "config.yaml", "best.json")
"""The files in it that describe the weights."""
HISTORY = ("epochs.jsonl", "events.jsonl")
"""The files in it with the history of training."""
EXAMPLE, REQUEST = "input_example.json", "serving_input_example.json"
"""The files with an example: of rows, and of what a server is sent."""


class Served:
    """A model that returns the codes of rows, or their reconstruction."""

    def __init__(self, run: "Run") -> None:
        self.run = run

    def predict(self, rows: ArrayLike, params: dict[str, Output] | None = None) -> "Array":
        """Return (N, H) codes of (N, D) rows, or with params={"give": "reconstruction"} (N, D)."""
        from mlflow.exceptions import MlflowException

        try:
            output = check_value("give", Output, (params or {}).get("give", "codes"))
            table = np.asarray(rows, np.float32)
            give = self.run.reconstruct if output == "reconstruction" else self.run.encode
            return give(table)
        except Refusal as refusal:
            # A server sends the text of this class alone, and hides that of any other.
            raise MlflowException.invalid_parameter_value(str(refusal)) from refusal


def _load_pyfunc(path: str) -> Served:
    """Open the folder of a run. MLflow calls this function by its name."""
    from distvae.train.run import Run

    return Served(Run.open(path))


def pack(run: Path, folder: Path) -> Path:
    """Write a model into a folder as MLflow stores it.

    It has weights, settings, history and figures, a card, an example, and the code that opens it.
    """
    _copy_run(run, folder / DATA)
    (folder / CARD).write_bytes(str(Card(run)).encode())
    info = run_info(run)
    assert info is not None
    _write_example(info, folder)
    _write_environment(folder)
    _described_model(info).save(str(folder / "MLmodel"))
    return folder


def _copy_run(run: Path, data: Path) -> None:
    """Copy the files of a run that open it, and those that say how good it is."""
    refuse_strange_entries(run)
    names = [*NEEDED, check_plain(read_json(run / "best.json")["tensors"], str(run / "best.json"))]
    names += [*(name for name in HISTORY if (run / name).is_file()), *summaries(run)]
    for name in names:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run / name, data / name)


def _write_example(info: "RunInfo", folder: Path) -> None:
    """Write two rows that rise through the range of the training data.

    Early runs did not record that range.
    """
    low, high = info.get("range", (0.0, 1.0))
    rows = np.linspace(low, high, 2 * info["dims"], dtype=np.float32).reshape(2, -1)
    (folder / EXAMPLE).write_text(json.dumps(rows.tolist()))
    (folder / REQUEST).write_text(json.dumps({"inputs": rows.tolist()}))


def _write_environment(folder: Path) -> None:
    """Write what the model needs: for pip, and for MLflow's virtual and conda environments."""
    import yaml

    write_wheel(folder)
    python, listed = platform.python_version(), ["-r requirements.txt"]
    pip = {"python": python, "build_dependencies": ["pip"], "dependencies": listed}
    conda = {
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": listed}],
    }
    (folder / "python_env.yaml").write_text(yaml.safe_dump(pip, sort_keys=False))
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False))


def _described_model(info: "RunInfo") -> "Model":
    """Return the description of the model by which MLflow opens it."""
    from mlflow.models import Model

    example = {
        "artifact_path": EXAMPLE,
        "serving_input_path": REQUEST,
        "type": "ndarray",
        "format": "tf-serving",
    }
    model = Model(signature=_signature(int(info["dims"])), saved_input_example_info=example)
    model.add_flavor(
        "python_function",
        loader_module=__name__,
        data=DATA,
        python_version=platform.python_version(),
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    )
    return model


def _signature(width: int) -> "ModelSignature":
    """Return the shapes of input and output."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    rows = TensorSpec(np.dtype(np.float32), (-1, width))
    out = TensorSpec(np.dtype(np.float32), (-1, -1))
    give = ParamSpec("give", DataType.string, "codes")
    return ModelSignature(Schema([rows]), Schema([out]), ParamSchema([give]))
