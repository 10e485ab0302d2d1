"""Package setup: installs the search spaces of tune_spaces/ as distvae/spaces, which pyproject.toml cannot express."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["distvae*"]), "distvae.spaces"],
    package_dir={"distvae.spaces": "tune_spaces"},
)
