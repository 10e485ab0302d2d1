"""The store of MLflow's records: a server, or a database in the folder of runs."""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import sqlite_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

SERVER_OPTIONS = (
    "--workers",
    "1",
    "--uvicorn-opts",
    "--log-level warning --timeout-graceful-shutdown 5",
)
"""Options of MLflow's server. Without a timeout, Ctrl-C waits until browsers have closed their
connections.
"""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # a dead server must not delay training for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # the URL may hold a password
    # jobs are for language models, and would keep four processes waiting
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
"""Environment variables that make MLflow quiet and quick to give up."""
TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""The tag by which MLflow's pages recognise an experiment about training."""


def without_secrets(text: str) -> str:
    """Return a URI, or a message with URIs, without user names, passwords and tokens."""
    text = re.sub(r"(?<=://)[^/\s]*@", "", text)
    return re.sub(r"(?i)((?:password|passwd|pwd|token|secret|key)=)[^&\s]+", r"\1...", text)


def import_mlflow() -> None:
    """Import MLflow, which takes seconds, with quiet settings."""
    refuse_missing("a record in MLflow", "mlflow")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for library in ("alembic", "mlflow"):  # Ray Tune imports MLflow before its level is set
        logging.getLogger(library).setLevel(logging.ERROR)
    import mlflow  # noqa: F401


def error_summary(error: Exception) -> str:
    """Return the message of an error on one line, without secrets."""
    text = without_secrets(cause(error))
    if "Max retries exceeded" in text:
        return "nothing answers there"
    return text[:300]


@dataclass(frozen=True)
class Store:
    """The place of MLflow's records."""

    uri: str

    @classmethod
    def find(cls, root: Path) -> "Store":
        """Return the store in MLFLOW_TRACKING_URI, or the store in a folder of runs."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root / "mlflow.db")
        scheme, slashes, rest = uri.partition(":///")
        if slashes and scheme == "sqlite":
            path, mark, options = rest.partition("?")
            uri = f"{sqlite_uri(Path(unquote(path)).absolute())}{mark}{options}"
        return cls(uri)

    @property
    def file(self) -> Path | None:
        """The database of an embedded store, or None."""
        path = self.uri.removeprefix("sqlite:///").partition("?")[0]
        return Path(unquote(path)) if self.uri.startswith("sqlite:///") else None

    @property
    def viewer(self) -> str:
        """The address or the command for a person to view the records."""
        return without_secrets(self.uri) if self.uri.startswith("http") else "distvae ui"

    def client(self) -> "MlflowClient":
        """Return a client, without checking that the store exists."""
        import_mlflow()
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def connect(self, experiment: str) -> "tuple[MlflowClient, str]":
        """Return a client, and the id of an experiment, which is created if necessary."""
        with self._locked():
            client = self.client()
            found = client.get_experiment_by_name(experiment)
            if found:
                return client, str(found.experiment_id)
            artifacts = (self.file.parent / "mlartifacts").as_uri() if self.file else None
            return client, str(client.create_experiment(experiment, artifacts, TRAINING))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock an embedded store, because two processes cannot create its tables at once."""
        if self.file is None:
            yield
            return
        from filelock import FileLock

        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.file.with_suffix(".lock")):
            # a damaged file fails here at once; MLflow would try for 100 s
            with closing(sqlite3.connect(self.file)) as database:
                database.execute("pragma journal_mode=wal")
            yield

    def open_client(self) -> "MlflowClient":
        """Return a client to read with.

        Raise `Refusal` if the store does not exist, does not answer, or is of a newer MLflow.
        """
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if self.file is not None and not self.file.is_file():
            raise Refusal(
                f"{self.file}: no records; 'distvae train' and 'distvae tune' make them, or set"
                " MLFLOW_TRACKING_URI"
            )
        try:
            client = self.client()
            client.search_experiments(max_results=1)
        # ImportError: the driver of a database is missing
        except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
            reason = error_summary(getattr(error, "orig", None) or error)
            uri = without_secrets(self.uri)
            raise Refusal(f"{uri}: {reason}; a store that this MLflow can read expected") from error
        return client
