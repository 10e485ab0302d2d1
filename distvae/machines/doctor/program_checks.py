"""Checks of Python, the installed packages and the source code of a machine."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires

from distvae.machines.doctor.diagnosis import Diagnosis
from distvae.machines.doctor.facts import Facts, normalised

INSTALL = "pip install -c requirements.lock -e ."
SHOWN_PACKAGES = ("torch", "ray", "mlflow")
"""Packages whose versions are shown where nothing is wrong."""
MAX_LISTED = 6
"""Packages that a finding lists before it says how many more there are."""


def check_programs(name: str, remote: Facts, local: Facts) -> Iterator[Diagnosis]:
    """Compare Python and the required packages of a machine with the driver's."""
    same = True
    if remote["python"] != local["python"]:
        same = False
        remedy = f"the Python {local['python']} there"
        yield _version_differs(name, "Python", remote["python"], local["python"], remedy)
    for package in required_packages():
        found, expected = _version(remote, package), _version(local, package)
        if found != expected:
            same = False
            remedy = f"install the same on every machine: {INSTALL}"
            yield _version_differs(name, package, found, expected, remedy)
    if same:
        yield Diagnosis("ok", "programs", name, f"{_shown_versions(local)} and the rest as here")


def _version_differs(name: str, program: str, found: str, expected: str, remedy: str) -> Diagnosis:
    """Return the diagnosis of another version than the driver's."""
    return Diagnosis("bad", program, name, f"{found}, but {expected} here", remedy)


def _version(facts: Facts, package: str) -> str:
    """Return the version of an installed package, or 'missing'."""
    return str(facts["packages"].get(package, "missing"))


def _shown_versions(facts: Facts) -> str:
    """Return the versions of Python and a few packages."""
    versions = [f"{package} {_version(facts, package)}" for package in SHOWN_PACKAGES]
    return ", ".join([f"Python {facts['python']}", *versions])


def required_packages() -> list[str]:
    """Return this package and the packages that it requires."""
    try:
        requirements = requires("distvae") or []
    except PackageNotFoundError:
        requirements = []
    packages = ["distvae"]
    for requirement in requirements:
        if "extra ==" not in requirement:
            name = re.match(r"[\w.-]+", requirement)
            packages.append(normalised(name[0] if name else requirement))
    return packages


def parse_lock(text: str) -> dict[str, str]:
    """Return the versions that a lock file pins."""
    versions = {}
    for line in text.splitlines():
        name, separator, version = line.partition("==")
        if separator and not line.startswith("#"):
            versions[normalised(name.strip())] = version.strip()
    return versions


def check_pins(name: str, facts: Facts, pins: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Compare the installed packages with the lock; other versions are only noted."""
    installed = facts["packages"]
    missing = [package for package in required_packages() if package not in installed]
    if missing:
        found = f"missing: {', '.join(missing)}"
        yield Diagnosis("bad", "packages", name, found, INSTALL)
    others = _other_versions(installed, pins)
    if others:
        found = f"not what requirements.lock pins: {', '.join(others[:MAX_LISTED])}"
        if len(others) > MAX_LISTED:
            found += f" and {len(others) - MAX_LISTED} more"
        remedy = f"other versions may work; these are known to: {INSTALL}"
        yield Diagnosis("note", "packages", name, found, remedy)
    elif not missing:
        found = f"{_shown_versions(facts)} and the rest as requirements.lock pins"
        yield Diagnosis("ok", "packages", name, found)


def _other_versions(installed: Mapping[str, str], pins: Mapping[str, str]) -> Sequence[str]:
    """Return the packages that are installed in another version than the pinned one."""
    others = []
    for package, version in pins.items():
        found = installed.get(package)
        if found is not None and found.partition("+")[0] != version:
            others.append(f"{package} {found} ({version})")
    return others


def check_source(name: str, remote: Facts, local: Facts) -> Iterator[Diagnosis]:
    """Compare the source code that is installed on a machine with the driver's."""
    theirs, ours = remote["source"], local["source"]
    if theirs is None:
        yield Diagnosis("bad", "code", name, "distvae is not installed", INSTALL)
    elif ours is not None and ours["digest"] != theirs["digest"]:
        found = f"{theirs['digest']} in {theirs['folder']}, but {ours['digest']} here"
        remedy = (
            "programs started from here bring their own code, programs started there do not: 'ray"
            " up' brings it up to date"
        )
        yield Diagnosis("note", "code", name, found, remedy)
    else:
        version = remote["packages"].get("distvae", "")
        yield Diagnosis("ok", "code", name, f"distvae {version}, source {theirs['digest']}")


def check_pesq(name: str, facts: Facts) -> Iterator[Diagnosis]:
    """Check whether PESQ can be computed."""
    pesq = facts["pesq"]
    if pesq["works"]:
        yield Diagnosis("ok", "PESQ", name, "can be computed")
        return
    needed = []
    if not pesq["compiler"]:
        needed.append("a C compiler (apt-get install gcc)")
    if not pesq["headers"]:
        needed.append("Python's headers (apt-get install python3-dev)")
    remedy = "pip install -c requirements.lock pesq"
    if needed:
        remedy = f"it needs {' and '.join(needed)}; then {remedy}"
    found = f"left out of every evaluation: {pesq['why']}"
    yield Diagnosis("note", "PESQ", name, found, remedy)
