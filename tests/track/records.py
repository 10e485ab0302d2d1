"""Records made and read back by tests."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from distvae.config import Config
from distvae.track import Sending, Store, Tracker
from distvae.train.loop import Epoch

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


def sweep_tracker(root: Path, **params: object) -> Tracker:
    (root / "sweep").mkdir(exist_ok=True)
    sending = Sending(Store.find(root), root / "sweep")
    tags = {"kind": "sweep", "folder": str(root / "sweep")}
    return Tracker(root / "sweep", sending, "here", "sweep", params, tags)


def train(record: Tracker, *epochs: int, **figures: float) -> None:
    """Write epochs into the folder of a run, and record them, as a training does."""
    for epoch in epochs:
        told = replace(RECORD, epoch=epoch, **figures)  # type: ignore[arg-type]
        with (record.folder / "epochs.jsonl").open("a") as file:
            file.write(json.dumps(told.metrics()) + "\n")
        record.epoch(told)


def runs(root: Path, experiment: str = "here") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def history(root: Path, run: str, key: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    found = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_metric_history(run, key)
    return sorted((metric.step, metric.value) for metric in found)


def steps(root: Path, run: Any) -> list[int]:
    """The epochs that MLflow has of a run."""
    return [step for step, _ in history(root, run.info.run_id, "bound/val_bound")]
