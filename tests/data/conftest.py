"""Nothing here reads or writes the user's own data and cache."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def clean_environment(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTVAE_DATA", raising=False)
    monkeypatch.setenv("DISTVAE_CACHE", str(shared_cache))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "recordings"
    path.mkdir()
    return path


@pytest.fixture
def write(root: Path) -> Write:
    """Writes a sound file below the root: half a second of noise unless a signal is given."""

    def writer(
        file: str,
        signal: NDArray[np.floating] | None = None,
        rate: int = 16000,
        subtype: str | None = None,
    ) -> Path:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(sum(file.encode())).uniform(-0.5, 0.5, 8000)
        soundfile.write(path, noise if signal is None else signal, rate, subtype=subtype)
        return path

    return writer
