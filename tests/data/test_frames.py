import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.signal
import soundfile

from distvae.config import SpeechData
from distvae.config.values import POWER_FLOOR
from distvae.data import open_dataset
from distvae.data.dataset import Array
from distvae.data.tables import rows as arrow
from distvae.files.refusal import Refusal

Write = Callable[..., Path]

OPEN = "from distvae.config import SpeechData; from distvae.data import open_dataset; import sys\n"
OPEN += "print(open_dataset(SpeechData(path=sys.argv[1])).digest)"
KILL = "import os, signal; from distvae.data.tables import arrow\n"
KILL += "arrow.wrap = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n" + OPEN
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n" + OPEN


@pytest.fixture
def speech(write: Write, root: Path, cache: Path) -> SpeechData:
    for speaker in ("ann", "bob", "cat", "dan"):
        for number, length in enumerate((6000, 20000)):
            noise = np.random.default_rng([ord(speaker[0]), number]).uniform(-0.5, 0.5, length)
            write(f"{speaker}/{number}.wav", noise, subtype="FLOAT")
    return SpeechData(path=str(root))


def spectra(path: Path) -> Array:
    """Power spectra by SciPy, for recordings without quiet ends."""
    signal, _ = soundfile.read(path)
    signal = np.pad(signal / np.abs(signal).max(), 512, mode="reflect")
    window = scipy.signal.windows.cosine(1024)
    starts = range(0, len(signal) - 1023, 256)
    return np.stack(
        [np.abs(np.fft.rfft(window * signal[start : start + 1024])) ** 2 for start in starts]
    )


def remains(cache: Path) -> list[Path]:
    return [path for path in (cache / "frames").iterdir() if path.suffix != ".lock"]


def test_rows_are_the_power_spectra_of_the_recordings_in_order(
    speech: SpeechData, root: Path
) -> None:
    dataset = open_dataset(speech, quiet=True)
    assert (dataset.unit, dataset.dims, dataset.root) == ("frame", 513, root)
    for split, rows in dataset.splits.items():
        parts = list(dataset.rows(split))
        assert parts[-1][1].stop == len(rows)
        for recording, part in parts:
            np.testing.assert_allclose(
                rows[part], spectra(root / recording.file), rtol=1e-3, atol=1e-3
            )


def test_silence_inside_a_recording_has_the_least_power(write: Write, speech: SpeechData) -> None:
    noise = np.random.default_rng(9).uniform(-0.5, 0.5, 6000)
    write("ann/2.wav", np.concatenate([noise, np.zeros(4096), noise]), subtype="FLOAT")
    least = [rows[:].min() for rows in open_dataset(speech).splits.values()]
    assert min(least) == np.float32(POWER_FLOOR)


def test_rows_are_mapped_and_cannot_be_written(speech: SpeechData) -> None:
    before = pa.total_allocated_bytes()
    rows = open_dataset(speech).splits["train"][:]
    assert pa.total_allocated_bytes() == before
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1


def test_what_is_built_is_not_built_again(speech: SpeechData, cache: Path) -> None:
    open_dataset(speech)
    (built,) = remains(cache)
    stamps = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    open_dataset(speech)
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == stamps


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 8000},
        {"window": 512},
        {"hop": 128},
        {"trim_db": None},
        {"trim_db": 20.0},
        {"level": "keep"},
    ],
)
def test_the_digest_follows_every_parameter_of_the_preparation(
    speech: SpeechData, change: dict[str, object]
) -> None:
    changed = replace(speech, **change)  # type: ignore[arg-type]
    assert open_dataset(changed).digest != open_dataset(speech).digest


def test_the_digest_follows_content_and_split_but_not_the_place(
    speech: SpeechData, root: Path, write: Write
) -> None:
    first = open_dataset(speech).digest
    moved = root.rename(root.with_name("moved"))
    assert open_dataset(replace(speech, path=str(moved))).digest == first
    moved.rename(root)
    drawn = {open_dataset(replace(speech, split_seed=seed)).digest for seed in range(6)}
    assert len(drawn) > 1
    write("ann/0.wav", np.random.default_rng(9).uniform(-0.5, 0.5, 6000), subtype="FLOAT")
    assert open_dataset(speech).digest not in drawn | {first}


def test_one_bad_recording_is_refused_by_name_and_nothing_is_kept(
    speech: SpeechData, write: Write, cache: Path
) -> None:
    write("bob/2.wav", np.zeros(8000))
    with pytest.raises(Refusal, match=r"bob/2\.wav: silent"):
        open_dataset(speech)
    assert remains(cache) == []


def run(code: str, config: SpeechData) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, config.path]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_processes_at_once_agree(speech: SpeechData, cache: Path) -> None:
    outputs = [process.communicate()[0] for process in [run(OPEN, speech), run(OPEN, speech)]]
    assert outputs == [open_dataset(speech).digest + "\n"] * 2
    assert len(remains(cache)) == 1


@pytest.mark.slow
def test_a_killed_build_does_not_count(speech: SpeechData, cache: Path) -> None:
    process = run(KILL, speech)
    process.communicate()
    assert process.returncode == -9
    assert remains(cache)
    dataset = open_dataset(speech)
    assert len(dataset.splits["train"]) == sum(
        part.stop - part.start for _, part in dataset.rows("train")
    )
    assert [path.name for path in remains(cache)] == [dataset.digest]


@pytest.mark.slow
def test_a_full_disk_is_refused_and_leaves_nothing(speech: SpeechData, cache: Path) -> None:
    process = run(FULL, speech)  # a limit on the size of files stands in for the disk
    _, errors = process.communicate()
    assert "Refusal" in errors
    assert "set DISTVAE_CACHE to another folder" in errors
    assert remains(cache) == []


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_an_arrow_file_gives_its_rows_back(tmp_path: Path, rows: int) -> None:
    values = np.random.default_rng(0).random((rows, 7), dtype=np.float32)
    (tmp_path / "a.raw").write_bytes(values.tobytes())
    arrow.wrap(tmp_path / "a.raw", tmp_path / "a.arrow", 7)
    np.testing.assert_array_equal(arrow.read_arrow(tmp_path / "a.arrow"), values)
    assert not (tmp_path / "a.raw").exists()
    with pa.OSFile(str(tmp_path / "a.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.column(0).to_pylist() == values.tolist()


@pytest.mark.slow
def test_real_speech_has_as_many_frames_as_counted_elsewhere(
    real_data: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    if not (real_data / "speech" / "speakers.csv").is_file():
        pytest.skip("no speech folder in the data")
    monkeypatch.setenv("DISTVAE_DATA", str(real_data))
    dataset = open_dataset(SpeechData())
    assert {name: len(rows) for name, rows in dataset.splits.items()} == {
        "train": 120215,
        "val": 16125,
        "test": 38559,
    }


def test_recordings_below_the_cache_keep_their_own_name(
    speech: SpeechData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTVAE_CACHE", str(Path(speech.path).parent))
    assert open_dataset(speech).name == Path(speech.path).name
