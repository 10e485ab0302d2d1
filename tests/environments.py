"""Environments of Python that hold some of the installed packages, and no others."""

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed_by(wanted: Iterable[str], extras: Iterable[str] = ()) -> dict[str, Distribution]:
    """The installed distributions that requirements name, and all that these need, by name.

    Requirements of these extras count too.
    """
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(line), extra) for line in wanted for extra in ("", *extras)]
    looked_at: set[tuple[str, str]] = set()
    while waiting:
        requirement, of = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": of}):
            continue
        name = canonicalize_name(requirement.name)
        found[name] = distribution(name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in looked_at:
                looked_at.add((name, extra))
                waiting += [(Requirement(line), extra) for line in found[name].requires or []]
    return found


def files_of(installed: Distribution) -> list[str]:
    """The files of a distribution, below the folder of all packages."""
    record = installed.read_text("RECORD") or ""
    files = [line.partition(",")[0] for line in record.splitlines()]
    return [file for file in files if not file.startswith(("../", "__pycache__/"))]


def top(file: str) -> str:
    return file.partition("/")[0]


def link(needed: Mapping[str, Distribution], site: Path) -> None:
    """Give an environment some installed distributions: a folder that has files of others too by
    its files, any other as a whole.
    """
    owners = Counter(part for each in distributions() for part in set(map(top, files_of(each))))
    for each in needed.values():
        parts = {top(file) if owners[top(file)] == 1 else file for file in files_of(each)}
        for part in sorted(parts):
            source, target = Path(str(each.locate_file(part))), site / part
            if source.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
