"""`distvae push`: give a trained model to others."""

from pathlib import Path


def push_run(run: Path, destination: str) -> None:
    """Write a trained model and its card to a new folder, or to a repository of the hub."""
    from distvae.share.pushed import push

    push(run, destination)
    print(destination)
