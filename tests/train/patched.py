"""Change a method in all processes that a test starts, by what Python imports at its start."""

import os
from pathlib import Path

import pytest

PATCH = """
import importlib.util, os, pathlib, signal, sys, time

HERE = pathlib.Path(__file__).parent
MODULE, KIND, METHOD = "{where}".replace(":", ".").rsplit(".", 2)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            kind, calls = getattr(module, KIND), iter(range(10**9))
            method = getattr(kind, METHOD)

            def patched(this, *values, **options):
                team = getattr(this, "team", None) or this.trainer.team
                if next(calls) >= {call} and team.rank == {rank} and not (HERE / "met").exists():
                    (HERE / "met").touch()
                    {what}
                return method(this, *values, **options)

            setattr(kind, METHOD, patched)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def patch_workers(
    monkeypatch: pytest.MonkeyPatch, folder: Path, where: str, call: int, rank: int, what: str
) -> None:
    """Let a statement be executed by a worker before its call of a method, once: `where` is
    `module:Class.method`. There is a file `met` in the folder afterwards.
    """
    text = PATCH.replace("{where}", where).replace("{call}", f"{call}")
    text = text.replace("{rank}", f"{rank}").replace("{what}", what)
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(text)
    others = os.environ.get("PYTHONPATH", str(Path.cwd()))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{others}")
