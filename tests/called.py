"""Commands run in the process of a test."""

import sys

import pytest

COMPILING = "distvae: compiling loops for this processor; it takes some 20 seconds, once\n"


class Called:
    """A command run in this process: its exit code and its output.

    The message of a new clone about compiling loops is left out.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *words: str) -> tuple[int, str, str]:
        from distvae import cli

        self.monkeypatch.setattr(sys, "argv", ["distvae", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err.replace(COMPILING, "")
