"""What pyproject.toml cannot say: the search spaces of tune_spaces/ are installed as distvae/spaces."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["distvae*"]), "distvae.spaces"],
    package_dir={"distvae.spaces": "tune_spaces"},
)
