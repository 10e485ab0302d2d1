"""`distvae push` and `distvae load`: give a trained model to others, and get one."""

from pathlib import Path


def push_run(run: Path, destination: str, force: bool) -> None:
    """Write a trained model and its card to a folder, a URI or the hub."""
    from distvae.share.pushed import push

    print(push(run, destination, force))


def load_model(source: str, folder: Path | None, force: bool) -> None:
    """Copy a pushed model into a folder or the cache, and print where it is."""
    from distvae.share.pushed import fetch, load_into

    if folder is None:
        print(fetch(source))
        return
    load_into(source, folder, force)
    print(folder)
