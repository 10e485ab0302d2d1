"""Trained runs that MLflow has and this machine has not, as folders: files are copied, and nothing
is unpickled.
"""

import shutil
from pathlib import Path
from typing import Any

from distvae.files.refusal import Refusal
from distvae.track.served import DATA, HISTORY, NEEDED
from distvae.track.store import Store, error_summary


def download_run(record: str, store: Store) -> Path:
    """The folder of what is logged of a run: the best weights, the configuration and the history of
    its training.
    """
    from distvae.data.folders import cache, once

    client = store.open_client()
    model = _model(client, record)
    folder = cache() / "models" / str(model.model_id)
    once(folder, lambda part: _download(store, model, part))
    return folder


def _model(client: Any, record: str) -> Any:
    """The latest model that a run logged whole."""
    made = [
        client.get_logged_model(given.model_id)
        for given in client.get_run(record).outputs.model_outputs
    ]
    whole = [model for model in made if model.status.name == "READY"]
    if not whole:
        raise Refusal(
            "no model of it is logged; 'distvae sync' where it was trained sends one if it waits"
            " there"
        )
    return max(whole, key=lambda model: model.creation_timestamp)


def _download(store: Store, model: Any, folder: Path) -> None:
    """Fill a folder with the files of a logged model that open a run."""
    from mlflow.artifacts import download_artifacts

    source = f"{model.artifact_location}/{DATA}"
    try:
        found = Path(
            download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=store.uri)
        )
    except Exception as error:  # buckets, and packages that reach them, have errors of their own
        raise Refusal(
            f"its model {model.model_id} cannot be fetched from MLflow: {error_summary(error)}"
        ) from error
    names = {path.name for path in found.iterdir() if path.is_file()}
    if missing := [name for name in NEEDED if name not in names]:
        raise Refusal(
            f"its model {model.model_id} in MLflow has no {missing[0]}; one that 'distvae train'"
            " logged expected"
        )
    for name in names:
        if name in (*NEEDED, *HISTORY) or name.endswith(".safetensors"):
            (found / name).replace(folder / name)
    shutil.rmtree(found)
