"""Package setup: installs what a checkout has beside the package as distvae/checkout.

pyproject.toml cannot express it, and names the files.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "distvae.checkout": ".",
    "distvae.checkout.cluster": "cluster",
    "distvae.checkout.tune_spaces": "tune_spaces",
}

setup(packages=[*find_packages(include=["distvae*"]), *FOLDERS], package_dir=FOLDERS)
