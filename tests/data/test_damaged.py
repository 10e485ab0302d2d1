"""Files that are damaged, or stand for more than they seem to, are read or refused by name."""

import gzip
import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pyarrow import csv, feather

from distvae.config import DataConfig, ImageData, SpeechData
from distvae.data import audio, ingest, open_dataset, recordings, signals
from distvae.data import image_files as archive
from distvae.data.family import survey
from distvae.data.pictures import head
from distvae.data.tables import Table
from distvae.files.refusal import Refusal

NOISE = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
NUMBERS = pa.table(
    {name: np.random.default_rng(k).normal(size=200) for k, name in enumerate("abc")}
)
LISTS = pa.table({"x": np.random.default_rng(0).normal(size=(200, 3)).tolist()})


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def picture(kind: str, **options: object) -> bytes:
    return written(lambda stream: Image.fromarray(NOISE).save(stream, kind, **options))


def table(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(Table.open(path).blocks(64)))


def decoded(path: Path) -> NDArray[np.float64]:
    return signals.read_signal(path).values


WHOLE: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "plain.tif": (picture("tiff"), decoded),
    "a.png": (picture("png"), decoded),
    "a.jpg": (picture("jpeg"), decoded),
    "a.npy": (written(lambda s: np.save(s, np.ones((50, 3)))), table),
    "packed.npz": (written(lambda s: np.savez_compressed(s, x=NOISE[None])), archive.read_archive),
    "numbers.parquet": (written(lambda s: pq.write_table(NUMBERS, s)), table),
    "lists.parquet": (written(lambda s: pq.write_table(LISTS, s)), table),
    "numbers.csv": (written(lambda s: csv.write_csv(NUMBERS, s)), table),
    "numbers.arrow": (
        written(lambda s: feather.write_feather(NUMBERS, s, compression="lz4")),
        table,
    ),
    "lists.arrow": (
        written(lambda s: feather.write_feather(LISTS, s, compression="uncompressed")),
        table,
    ),
    "train-images-idx3-ubyte.gz": (
        gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 20, 20, 3) + NOISE.tobytes()),
        partial(archive.read_idx, dims=3),
    ),
}


def damaged(content: bytes, seed: int) -> bytes:
    """Some bytes altered, the end cut off, or sixteen bytes in a row replaced."""
    chance, result = np.random.default_rng(seed), bytearray(content)
    if seed % 3 == 0:
        for place in chance.integers(0, chance.choice([min(200, len(content)), len(content)]), 3):
            result[place] = chance.integers(256)
    elif seed % 3 == 1:
        result = result[: chance.integers(0, len(content))]
    else:
        start = int(chance.integers(0, len(content) - 16))
        result[start : start + 16] = chance.bytes(16)
    return bytes(result)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_whatever_the_damage_a_file_is_read_or_refused_by_name(
    name: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content, read = WHOLE[name]
    path = tmp_path_factory.mktemp("damage") / name
    path.write_bytes(damaged(content, seed))
    with suppress(Refusal):
        read(path)


@pytest.mark.parametrize(
    "header",
    ["{'descr': '<f8', 'shape': (2, " + "(" * 80, "[" * 9000, "-" * 9000, "{'descr': 'O'}"],
)
def test_a_damaged_header_of_an_array_is_refused(tmp_path: Path, header: str) -> None:
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        packed.writestr("x.npy", content)
    for name, read in {
        "a.npy": lambda path: Table.open(path),
        "a.npz": archive.read_archive,
    }.items():
        with pytest.raises(
            Refusal, match=rf"a\.{name[2:]}: cannot be read \(.*\); .* expected"
        ) as refusal:
            read(tmp_path / name)
        assert len(str(refusal.value)) < 400


def blank_png(side: int) -> bytes:
    """A picture whose header announces any size, without pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_picture_of_more_pixels_than_any_machine_needs_is_refused_by_its_header(
    tmp_path: Path,
) -> None:
    (tmp_path / "vast.png").write_bytes(blank_png(13_000))
    words = r"vast\.png: 13,000 x 13,000 pixels; 134,217,728 in all at most"
    with pytest.raises(Refusal, match=words):
        head(tmp_path / "vast.png")


def test_what_needs_more_memory_than_there_is_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distvae.files.paths.available_memory", lambda: 2**20)
    (tmp_path / "large.png").write_bytes(blank_png(1000))
    np.savez_compressed(tmp_path / "large.npz", x=np.zeros((100, 100, 100), np.uint8))
    (tmp_path / "images.gz").write_bytes(
        gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 10**4, 100, 100))
    )
    soundfile.write(tmp_path / "large.flac", np.zeros(2**20), 16000)
    readers: dict[str, Callable[[Path], object]] = {
        "large.png": signals.read_signal,
        "large.npz": archive.read_archive,
        "images.gz": partial(archive.read_idx, dims=3),
        "large.flac": audio.decode,
    }
    for name, read in readers.items():
        with pytest.raises(
            Refusal, match=rf"{name}: .* need [\d.]+ [kMG]B of memory, but 1.0 MB are free"
        ):
            read(tmp_path / name)


def test_gzip_is_unpacked_no_further_than_its_header_announces(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", 1) as stream:
        stream.write(struct.pack(">4B3I", 0, 0, 8, 3, 10, 2, 2))
        for _ in range(64):
            stream.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(Refusal, match=r"bomb\.gz: more values; 10 x 2 x 2 announced"):
        archive.read_idx(path, 3)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20


@pytest.mark.parametrize(
    ("channels", "rate", "words"),
    [(1000, 16000, "1000 channels; 64 at most"), (1, 1, "a sampling rate of 1 Hz")],
)
def test_sounds_as_nobody_records_them_are_refused_by_their_header(
    tmp_path: Path, channels: int, rate: int, words: str
) -> None:
    soundfile.write(tmp_path / "odd.wav", np.zeros((10, channels)), rate)
    for read in (audio.head, audio.decode):
        with pytest.raises(Refusal, match=rf"odd\.wav: {words}"):
            read(tmp_path / "odd.wav")


READERS: list[Callable[[Path], object]] = [
    audio.head,
    archive.read_archive,
    signals.read_picture,
    Table.open,
    partial(archive.read_idx, dims=3),
    lambda path: recordings.find_speakers(path.parent, SpeechData(speakers=f"csv:{path.name}")),
]


@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a folder"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.npy"
    make: dict[str, Callable[[Path], object]] = {
        "a named pipe": os.mkfifo,
        "a device": partial(os.symlink, "/dev/zero"),
        "a folder": os.mkdir,
    }
    make[kind](path)
    for read in READERS:
        with pytest.raises(Refusal, match=rf"odd\.npy: {kind}; .* expected"):
            read(path)


def test_more_rows_than_memory_are_refused_before_a_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1000, 3), np.float32))
    monkeypatch.setattr("distvae.files.paths.available_memory", lambda: 10_000)
    with pytest.raises(Refusal, match=r"a\.npy: rows of 3 values need"):
        ingest.ingest([tmp_path / "a.npy"], tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_files_of_other_kinds_are_told_and_not_skipped_in_silence(tmp_path: Path) -> None:
    sounds, pictures = tmp_path / "sounds", tmp_path / "pictures"
    pictures.mkdir()
    for letter in "abc":
        (sounds / letter).mkdir(parents=True)
        (sounds / letter / "1.m4a").touch()
        (pictures / f"{letter}.gif").touch()
        Image.fromarray(NOISE).save(pictures / f"{letter}.png")
    with pytest.raises(Refusal, match=r"no recordings \(left out, of kinds that are not"):
        open_dataset(SpeechData(path=str(sounds)))
    for letter in "abc":
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)
        soundfile.write(sounds / letter / "1.wav", noise, 16000)
    configs: dict[str, DataConfig] = {
        ".m4a": SpeechData(path=str(sounds)),
        ".gif": ImageData(path=str(pictures)),
    }
    for suffix, config in configs.items():
        note = f"left out, of kinds that are not read here: 3 {suffix}"
        assert open_dataset(config, quiet=True).name == f"{Path(config.path).name}: {note}"
        assert survey(config.path).wrong == (note,)
