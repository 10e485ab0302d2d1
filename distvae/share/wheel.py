"""A wheel of this package as it runs here, so that a model can travel with the code that opens it.

Its version has the digest of its files, as in `0.2.0+codeab12...`. No other wheel, and none of a
public registry, can therefore be taken for it.
"""

import base64
import hashlib
import io
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from distvae.files.checkout import CHECKOUT, INSTALLED, PACKAGE, checkout_files
from distvae.files.plain import Tree

WHEELS = "wheels"
"""The folder of a model that holds the wheel."""
BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a wheel, so that equal files make equal wheels."""
PERMISSIONS = 0o644 << 16
FORMAT = "Wheel-Version: 1.0\nGenerator: distvae\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
PARTS = re.compile(r"^([\w.-]+)(\[[^\]]*\])?")
"""The name of a package at the beginning of a requirement, and the extras after it."""


class Wheel(NamedTuple):
    """An archive that pip installs."""

    version: str
    content: bytes

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"distvae-{self.version}-py3-none-any.whl"


@cache
def build_wheel() -> Wheel:
    """Return a wheel with the files of this package, installed or in a checkout."""
    project, files = _project(), _package_files()
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    number = f"{project['version']}+code{digest.hexdigest()[:12]}"
    info = f"distvae-{number}.dist-info"
    files[f"{info}/METADATA"] = "\n".join(_metadata(project, number)).encode()
    files[f"{info}/WHEEL"] = FORMAT.encode()
    files[f"{info}/entry_points.txt"] = _scripts(project).encode()
    files[f"{info}/RECORD"] = _record(files, info).encode()
    return Wheel(number, _archive(files))


def requirements() -> list[str]:
    """Return lines of a requirements.txt: the wheel beside it, and the packages that it needs.

    Their versions are those of this environment. A build such as `+cpu` is in no public registry.
    """
    pinned = []
    for needed in _project()["dependencies"]:
        _, name, extras, _ = PARTS.split(needed, maxsplit=1)
        try:
            pinned.append(f"{name}{extras or ''}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            pinned.append(needed)
    return [f"--find-links {WHEELS}", f"distvae=={build_wheel().version}", *pinned]


def _project() -> Tree:
    project: Tree = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return project


def _package_files() -> dict[str, bytes]:
    """Return the files of an installed package, by their places."""
    beside = INSTALLED.relative_to(PACKAGE.parent).as_posix()
    files = {}
    for place, file in sorted(checkout_files().items()):
        inside = place.startswith(f"{PACKAGE.name}/")
        files[place if inside else f"{beside}/{place}"] = file.read_bytes()
    return files


def _metadata(project: Tree, number: str) -> Iterator[str]:
    yield from ("Metadata-Version: 2.1", "Name: distvae", f"Version: {number}")
    yield f"Summary: {project['description']}"
    yield f"Requires-Python: {project['requires-python']}"
    for needed in project["dependencies"]:
        yield f"Requires-Dist: {needed}"
    for extra, packages in project["optional-dependencies"].items():
        yield f"Provides-Extra: {extra}"
        for needed in packages:
            yield f'Requires-Dist: {needed}; extra == "{extra}"'
    yield ""


def _scripts(project: Tree) -> str:
    lines = [f"{name} = {target}" for name, target in project["scripts"].items()]
    return "\n".join(["[console_scripts]", *lines, ""])


def _record(files: Mapping[str, bytes], info: str) -> str:
    """Return the list of files that an installer checks."""
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    return "\n".join([*lines, f"{info}/RECORD,,", ""])


def _archive(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with ZipFile(stream, "w") as archive:
        for name, content in files.items():
            member = ZipInfo(name, BEGINNING)
            member.external_attr = PERMISSIONS
            archive.writestr(member, content, ZIP_DEFLATED)
    return stream.getvalue()


def write_wheel(folder: Path) -> None:
    """Write the wheel and the requirements that name it into the folder of a model."""
    wheel = build_wheel()
    (folder / WHEELS).mkdir()
    (folder / WHEELS / wheel.name).write_bytes(wheel.content)
    (folder / "requirements.txt").write_text("\n".join([*requirements(), ""]))
