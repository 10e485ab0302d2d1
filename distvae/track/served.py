"""A trained model in the form that `mlflow.pyfunc.load_model` opens. Nothing is unpickled.

Logged models contain the name of this module, so the module must keep its name.
"""

import re
import shutil
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from distvae.config.schema import check_value
from distvae.files.program import CHECKOUT, PACKAGE
from distvae.files.refusal import Refusal
from distvae.files.untrusted import check_plain, read_json, refuse_strange_entries
from distvae.share import CARD, card, summaries
from distvae.track.store import HISTORY, NEEDED

if TYPE_CHECKING:
    from distvae.data.dataset import Array
    from distvae.train.run import Run
    from distvae.train.run_folder import RunInfo

Output = Literal["codes", "reconstruction"]


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
            # a server sends the text of this class alone, and hides the text of other classes
            raise MlflowException.invalid_parameter_value(str(refusal)) from refusal


def _load_pyfunc(path: str) -> Served:
    """Open the folder of a run. MLflow calls this function by its name."""
    from distvae.train.run import Run

    return Served(Run.open(path))


def run_info(folder: Path) -> "RunInfo | None":
    """Return the facts in run.json, or None in a sweep folder."""
    file = folder / "run.json"
    return cast("RunInfo", read_json(file)) if file.exists() else None


def pack(run: Path, folder: Path, with_code: bool = True) -> None:
    """Write a model into a folder in MLflow's format.

    The model has weights, settings, history and metrics, a card and an example: two rows that rise
    through the range of the training data. The code that opens the model is hundreds of files,
    which take most of the time to send a small model.
    """
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    refuse_strange_entries(run)
    names = [*NEEDED, check_plain(read_json(run / "best.json")["tensors"], str(run / "best.json"))]
    names += [*(name for name in HISTORY if (run / name).is_file()), *summaries(run)]
    info = run_info(run)
    assert info is not None
    low, high = info.get("range", (0.0, 1.0))  # runs of early versions did not record the range
    rows, values = (TensorSpec(np.dtype(np.float32), (-1, width)) for width in (info["dims"], -1))
    give = ParamSpec("give", DataType.string, "codes")
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            file = Path(scratch, "run", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(run / name, file)
        save_model(
            str(folder),
            loader_module=__name__,
            data_path=f"{scratch}/run",
            code_paths=[str(PACKAGE)] if with_code else None,
            signature=ModelSignature(Schema([rows]), Schema([values]), ParamSchema([give])),
            input_example=np.linspace(low, high, 2 * info["dims"], dtype="f4").reshape(2, -1),
            pip_requirements=_requirements(),
        )
    (folder / CARD).write_bytes(card(run).encode())


def _requirements() -> list[str]:
    """Return the packages that this package needs, with their versions in this environment.

    A local build such as `+cpu` is in no public registry, so it is left out.
    """
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[^\w-]", needed)[0] for needed in project["dependencies"]]
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]
