"""`distvae cluster init`: write the folder that a cluster is started from."""

from pathlib import Path

from distvae.files.checkout import checkout_files
from distvae.files.output import atomic_file, make_folder
from distvae.files.refusal import Refusal


def init_cluster(folder: Path, force: bool) -> None:
    """Write the cluster files, the search spaces and the package into a folder."""
    files = checkout_files()
    if not force:
        _refuse_other_contents(folder, files)
    make_folder(folder)
    for place, source in files.items():
        make_folder((folder / place).parent)
        content = source.read_bytes()
        with atomic_file(folder / place) as temporary:
            temporary.write_bytes(content)
    print(f"{folder}: set machines and shared folder at the top of cluster/cluster.yaml, then run")
    print("in that folder:")
    print("  distvae doctor --file cluster/cluster.yaml && ray up cluster/cluster.yaml")


def _refuse_other_contents(folder: Path, files: dict[str, Path]) -> None:
    """Refuse a folder with a file that would not be written, or with other bytes."""
    for file in folder.rglob("*"):
        source = files.get(file.relative_to(folder).as_posix())
        if file.is_file() and (source is None or source.read_bytes() != file.read_bytes()):
            raise Refusal(
                f"{folder}: exists and has a {file.relative_to(folder)} of its own; another name or"
                " --force expected"
            )
