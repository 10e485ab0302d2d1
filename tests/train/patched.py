"""Change the trainer of all processes that a test starts, by what Python imports at its start."""

import os
from pathlib import Path

import pytest

PATCH = """
import importlib.util, pathlib, sys

HERE = pathlib.Path(__file__).parent

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "distvae.train.loop":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            step = module.Trainer._step

            def patched(trainer, *values, **options):
                at = trainer.team.rank, trainer.position.epoch, trainer.position.batch
                if at == {at} and not (HERE / "met").exists():
                    (HERE / "met").touch()
                    {what}
                return step(trainer, *values, **options)

            module.Trainer._step = patched

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def patch_trainer(
    monkeypatch: pytest.MonkeyPatch, folder: Path, rank: int, epoch: int, batch: int, what: str
) -> None:
    """Let a statement be executed by a worker before its step at a place, once. There is a file
    `met` in the folder afterwards.
    """
    text = PATCH.replace("{at}", repr((rank, epoch, batch))).replace("{what}", what)
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(text)
    others = os.environ.get("PYTHONPATH", str(Path.cwd()))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{others}")
