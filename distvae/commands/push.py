"""`distvae push` and `distvae load`: give a trained model to others, and get one."""

from pathlib import Path

from distvae.files.refusal import Refusal


def push_run(run: Path, destination: str, force: bool) -> None:
    """Write a trained model and its card to a folder, a URI or the hub."""
    from distvae.share.pushed import push

    print(push(run, destination, force))


def load_model(source: str, folder: Path | None, force: bool) -> None:
    """Copy a pushed model into a folder or the cache, and print where it is."""
    from distvae.share.pushed import fetch, load_into

    _refuse_unpushed(source)
    if folder is None:
        print(fetch(source))
        return
    load_into(source, folder, force)
    print(folder)


def _refuse_unpushed(source: str) -> None:
    """Refuse a folder of this machine that holds something else, such as a run."""
    from distvae.share.names import CARD, NEEDED, SUMS

    if Path(source).is_dir() and not (Path(source) / SUMS).is_file():
        names = ", ".join([CARD, *NEEDED])
        raise Refusal(
            f"{source}: has no {SUMS}; a folder that 'distvae push' wrote expected, with {names}"
            f" and {SUMS}; 'distvae push {source} DEST' writes one from a run"
        )
