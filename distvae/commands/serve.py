"""`distvae serve`: serve MLflow on the head of a cluster."""

from distvae.files.refusal import Refusal


def serve_mlflow(storage: str, port: int, database: str | None, beside: str | None) -> None:
    """Serve MLflow until interrupted, or until nothing listens at the address `beside`."""
    from distvae.track.server import serve

    if beside is not None and not beside.rpartition(":")[2].isdecimal():
        raise Refusal(f"--beside: {beside}; an address such as 127.0.0.1:6379 expected")
    serve(storage, port, database, beside)
