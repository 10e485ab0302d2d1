"""Records made and read back by tests."""

import math
from pathlib import Path
from typing import Any

from distvae.config import Config
from distvae.track import Tracker
from distvae.train.epoch import Epoch

RECORD = Epoch(
    epoch=1,
    epochs=5,
    train_objective=-3.0,
    val_objective=-2.0,
    val_bound=-2.5,
    val_kl=math.nan,
    val_hoyer=0.3,
    rate=1e-3,
    rows_per_second=1e4,
    seconds=1.0,
    best=True,
)


def tracker(
    root: Path, name: str = "one", parent: Path | None = None, experiment: str = "here"
) -> Tracker:
    (root / name).mkdir(exist_ok=True, parents=True)
    return Tracker.open(Config(), "speech-vae", root / name, experiment, parent, root=root)


def runs(root: Path, experiment: str = "here") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def history(root: Path, run: str, key: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    found = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_metric_history(run, key)
    return sorted((metric.step, metric.value) for metric in found)


def away(root: Path) -> None:
    (root / "mlflow.db").rename(root / "away.db")
    (root / "mlflow.db").mkdir()


def back(root: Path) -> None:
    (root / "mlflow.db").rmdir()
    (root / "away.db").rename(root / "mlflow.db")
