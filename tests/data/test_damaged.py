"""Files that are damaged, or stand for more than they seem to: read as they were, or refused by
name.
"""

import gzip
import io
import json
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
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
from pyarrow import feather

from distvae.config import IdxData, ImageData, RowsData, SpeechData
from distvae.data import audio, folders, open_dataset, signals
from distvae.data.check import survey
from distvae.data.images import arrays as archive
from distvae.data.images import idx
from distvae.data.pictures import head
from distvae.data.speech import recordings
from distvae.data.tables import ingest, rows
from distvae.data.tables.table import Table
from distvae.files.refusal import Refusal
from tests.called import Called

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
    "packed.tif": (picture("tiff", compression="tiff_lzw"), decoded),
    "a.png": (picture("png"), decoded),
    "a.jpg": (picture("jpeg"), decoded),
    "a.npy": (written(lambda s: np.save(s, np.ones((50, 3)))), table),
    "plain.npz": (written(lambda s: np.savez(s, x=NOISE[None])), archive.read_archive),
    "packed.npz": (written(lambda s: np.savez_compressed(s, x=NOISE[None])), archive.read_archive),
    "numbers.parquet": (written(lambda s: pq.write_table(NUMBERS, s)), table),
    "lists.parquet": (written(lambda s: pq.write_table(LISTS, s)), table),
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
        partial(idx.read_idx, dims=3),
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
@settings(max_examples=60)
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
    for name, read in {"a.npy": Table.open, "a.npz": archive.read_archive}.items():
        with pytest.raises(
            Refusal, match=rf"a\.{name[2:]}: cannot be read \(.*\); .* expected"
        ) as refusal:
            read(tmp_path / name)
        assert len(str(refusal.value)) < 400


def blank_png(side: int) -> bytes:
    """A picture of any size in few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def small_machine(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("distvae.files.memory.available_memory", lambda: free)


def test_a_picture_of_more_pixels_than_any_machine_needs_is_refused_by_its_header(
    call: Called, tmp_path: Path
) -> None:
    path = tmp_path / "vast.png"
    path.write_bytes(blank_png(13_000))
    assert path.stat().st_size < 2**18
    with pytest.raises(
        Refusal, match=r"vast\.png: 13,000 x 13,000 pixels; 134,217,728 in all at most"
    ):
        head(path)
    code, out, err = call("denoise", str(path), str(tmp_path / "out.png"))
    announced, refused = err.splitlines()
    assert (code, out, announced) == (2, "", "vast.png: by groups of similar windows")
    assert refused.startswith("distvae: ")


def test_what_needs_more_memory_than_there_is_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_machine(monkeypatch, 2**20)
    (tmp_path / "large.png").write_bytes(blank_png(1000))
    np.savez_compressed(tmp_path / "large.npz", x=np.zeros((100, 100, 100), np.uint8))
    (tmp_path / "images.gz").write_bytes(
        gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 10**4, 100, 100))
    )
    soundfile.write(tmp_path / "large.flac", np.zeros(2**20), 16000)
    readers: dict[str, Callable[[Path], object]] = {
        "large.png": signals.read_signal,
        "large.npz": archive.read_archive,
        "images.gz": partial(idx.read_idx, dims=3),
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
        idx.read_idx(path, 3)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20


@pytest.mark.parametrize(
    ("channels", "rate", "words"),
    [
        (1000, 16000, "1000 channels; 64 at most"),
        (1, 1, "a sampling rate of 1 Hz"),
        (1, 2**30, "a sampling rate of"),
    ],
)
def test_sounds_as_nobody_records_them_are_refused_by_their_header(
    tmp_path: Path, channels: int, rate: int, words: str
) -> None:
    path = tmp_path / "odd.wav"
    soundfile.write(path, np.zeros((10, channels)), rate)
    for read in (audio.head, audio.decode):
        with pytest.raises(Refusal, match=rf"odd\.wav: {words}"):
            read(path)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "wav"])
def test_a_truncated_recording_does_not_pass_a_look_at_its_head(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a.{suffix}"
    for seed in range(4):
        soundfile.write(path, np.random.default_rng(seed).uniform(-0.3, 0.3, 40_000), 16000)
        assert audio.head(path) == (16000, 2.5)
    assert capfd.readouterr().err == ""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(Refusal, match=rf"a\.{suffix}: truncated; the whole file expected"):
        audio.head(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 40, bytes(5000)])
def test_a_broken_mp3_is_refused_for_what_it_is_without_a_word_from_its_decoder(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp3").write_bytes(content)
    for read in (audio.head, audio.decode):
        with pytest.raises(Refusal, match=r"a\.mp3: holds no MPEG audio"):
            read(tmp_path / "a.mp3")
    assert capfd.readouterr().err == ""


def test_an_mp3_behind_a_long_tag_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 40_000), 16000)
    size = 100_000
    tag = b"ID3\x03\x00\x00" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    path.write_bytes(tag + path.read_bytes())
    assert len(audio.decode(path)[0]) == 40_000


@pytest.mark.parametrize("read", [audio.head, audio.decode])
@pytest.mark.parametrize("text", [b"Xing", b"Info"])
def test_the_text_of_a_tag_announces_no_length(
    tmp_path: Path, text: bytes, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 40_000), 16000)
    content = text + b"\xff" * 16
    tag = b"ID3\x03\x00\x00\x00\x00\x00" + bytes([len(content)]) + content
    stream = path.read_bytes()
    path.write_bytes(tag + stream)
    read(path)
    path.write_bytes(tag + stream[: len(stream) // 2])
    with pytest.raises(Refusal, match=r"a\.mp3: truncated"):
        read(path)


@pytest.mark.parametrize("form", ["RF64", "NIST"])
@pytest.mark.parametrize("read", [audio.head, audio.decode])
def test_a_truncated_file_of_another_format_named_wav_is_refused(
    tmp_path: Path, form: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "a.wav"
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000)
    soundfile.write(path, signal, 16000, format=form, subtype="PCM_16")
    read(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(Refusal, match=r"a\.wav: truncated"):
        read(path)


@pytest.mark.parametrize(
    "read",
    [
        audio.head,
        audio.decode,
        archive.read_archive,
        signals.read_picture,
        Table.open,
        partial(idx.read_idx, dims=3),
        lambda path: recordings.find_speakers(path.parent, SpeechData(speakers=f"csv:{path.name}")),
    ],
)
@pytest.mark.parametrize("kind", ["a named pipe", "a device", "a folder"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    tmp_path: Path, kind: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "odd.npy"
    make: dict[str, Callable[[Path], object]] = {
        "a named pipe": os.mkfifo,
        "a device": partial(os.symlink, "/dev/zero"),
        "a folder": os.mkdir,
    }
    make[kind](path)
    with pytest.raises(Refusal, match=rf"odd\.npy: {kind}; .* expected"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"speaker,file"])
def test_an_empty_table_of_speakers_is_told_what_it_lacks(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "speakers.csv").write_bytes(content)
    with pytest.raises(
        Refusal, match=r"speakers\.csv: no (column file and no column speaker|rows)"
    ):
        recordings.find_speakers(tmp_path, SpeechData())


def test_decimals_are_numbers(tmp_path: Path) -> None:
    values = [Decimal("1.25"), Decimal("-7.5")]
    content = pa.table(
        {"a": pa.array(values, pa.decimal128(6, 2)), "b": pa.array(values, pa.decimal256(40, 4))}
    )
    pq.write_table(content, tmp_path / "a.parquet")
    feather.write_feather(content, tmp_path / "a.arrow")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(table(path), [[1.25, 1.25], [-7.5, -7.5]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"]),
            "two columns are called 'a'",
        ),
        (
            pa.table({"x": [[], [1.0]]}),
            "row 0 is an empty list, or null; lists of one length expected",
        ),
        (
            pa.table({"x": [None, [1.0]]}),
            "row 0 is an empty list, or null; lists of one length expected",
        ),
        (pa.table({"x": [[1.0, 2.0], [3.0]]}), "row 1 has 1 values; 2 expected, as row 0 has"),
    ],
)
def test_a_table_is_told_what_is_wrong_with_it(
    tmp_path: Path, content: pa.Table, words: str
) -> None:
    pq.write_table(content, tmp_path / "a.parquet")
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as stream,
        pa.ipc.new_file(stream, content.schema) as writer,
    ):
        writer.write_table(content)
    for path in tmp_path.iterdir():
        with pytest.raises(Refusal, match=rf"a{path.suffix}: {words}"):
            table(path)


def test_a_page_of_parquet_that_has_a_checksum_is_held_against_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        NUMBERS, path, compression="none", use_dictionary=False, write_page_checksum=True
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Refusal, match=r"a\.parquet: cannot be read \(.*CRC"):
        table(path)


def ingested(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.arange(60, dtype=np.float32).reshape(20, 3))
    ingest.ingest([tmp_path / "a.npy"], tmp_path / "made", ingest.Division(rows_per_file=8))
    return tmp_path / "made"


def test_a_flipped_bit_of_ingested_rows_is_seen_even_after_they_were_seen_whole(
    tmp_path: Path,
) -> None:
    made = ingested(tmp_path)
    open_dataset(RowsData(path=str(made)))
    path = made / "train-00001.arrow"
    content = bytearray(path.read_bytes())
    content[content.index(rows.read_arrow(path)[4].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        Refusal, match=r"train-00001\.arrow: altered or damaged: its checksum is not the one"
    ):
        open_dataset(RowsData(path=str(made)))


def test_rows_are_read_for_their_checksums_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = ingested(tmp_path).rename(tmp_path / "moved"), list[Path]()
    digest = folders.digest

    def counted(path: Path) -> str:
        seen.append(path)
        return digest(path)

    monkeypatch.setattr(folders, "digest", counted)
    for _ in range(3):
        open_dataset(RowsData(path=str(made)))
    assert len(seen) == len(list(made.glob("*.arrow")))


def test_rows_are_not_read_for_their_checksums_where_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ingested(tmp_path)
    monkeypatch.setattr(folders, "digest", pytest.fail)
    open_dataset(RowsData(path=str(made)))


@pytest.mark.parametrize("facts", [{}, {"rows": "of others"}, {"splits": {}}])
def test_damaged_facts_are_refused(tmp_path: Path, facts: dict[str, object]) -> None:
    made = ingested(tmp_path)
    content = json.loads((made / "facts.json").read_bytes())
    (made / "facts.json").write_text(json.dumps(content | facts) if facts else "{}")
    with pytest.raises(Refusal, match=r"facts\.json: altered or damaged, or of other rows"):
        open_dataset(RowsData(path=str(made)))


WRONG: dict[str, object] = {
    "values": "3",
    "splits": {"val": []},
    "splits ": {"train": []},
    "splits  ": {"train": [{"file": "train-00000.arrow"}]},
    "splits   ": {"train": [{"file": "../a.npy", "rows": 1, "bytes": 1, "sha256": ""}]},
    "splits    ": [["train"]],
    "splits     ": {"train": [[[[]]]], "other": [{}]},
}


@pytest.mark.parametrize("field", WRONG)
def test_a_manifest_with_a_wrong_field_is_refused(tmp_path: Path, field: str) -> None:
    made = ingested(tmp_path)
    facts = json.loads((made / "rows.json").read_bytes()) | {field.strip(): WRONG[field]}
    (made / "rows.json").write_text(json.dumps(facts | {"digest": rows.digest(facts)}))
    with pytest.raises(
        Refusal, match=r"rows\.json: altered or damaged: lacks a field, or one is wrong"
    ):
        open_dataset(RowsData(path=str(made)))


def test_a_damaged_file_of_the_cache_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "train.arrow").write_bytes(b"ARROW1" + bytes(100))
    with pytest.raises(Refusal, match=r"train\.arrow: cannot be read"):
        rows.read_arrow(tmp_path / "train.arrow")


def test_more_rows_than_memory_are_refused_before_a_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1000, 3), np.float32))
    small_machine(monkeypatch, 10_000)
    with pytest.raises(Refusal, match=r"a\.npy: rows of 3 values need"):
        ingest.ingest([tmp_path / "a.npy"], tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_folder_of_pictures_given_as_idx_files_is_told_how_it_is_read(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    with pytest.raises(
        Refusal,
        match=r"has none of .*; the images there are read with data\.kind=images, .*data\.size",
    ):
        open_dataset(IdxData(path=str(tmp_path)))


def test_recordings_of_other_kinds_are_told_and_not_skipped_in_silence(tmp_path: Path) -> None:
    root = tmp_path / "speech"
    for speaker in "abc":
        (root / speaker).mkdir(parents=True)
        (root / speaker / "1.m4a").touch()
    with pytest.raises(
        Refusal,
        match=r"no recordings \(left out, of kinds that are not read here: 3 \.m4a\); \.wav",
    ):
        open_dataset(SpeechData(path=str(root)))
    for speaker in "abc":
        soundfile.write(
            root / speaker / "2.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 4000), 16000
        )
    note = "left out, of kinds that are not read here: 3 .m4a"
    assert open_dataset(SpeechData(path=str(root)), quiet=True).name == f"speech: {note}"
    assert survey(str(root)).wrong == (note,)


def test_pictures_of_other_kinds_are_told_and_not_skipped_in_silence(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(NOISE).save(tmp_path / name)
    (tmp_path / "d.gif").touch()
    assert survey(str(tmp_path)).wrong == ("left out, of kinds that are not read here: 1 .gif",)
    assert open_dataset(ImageData(path=str(tmp_path)), quiet=True).name.endswith(
        "not read here: 1 .gif"
    )


def test_one_broken_recording_names_itself_and_what_finds_the_others(tmp_path: Path) -> None:
    for speaker in "abc":
        (tmp_path / speaker).mkdir()
        soundfile.write(
            tmp_path / speaker / "1.mp3", np.random.default_rng(0).uniform(-0.5, 0.5, 4000), 16000
        )
    (tmp_path / "b" / "1.mp3").write_bytes(b"<html>")
    with pytest.raises(
        Refusal, match=r"b/1\.mp3: holds no MPEG audio.*; 'distvae data check .*' names every file"
    ):
        open_dataset(SpeechData(path=str(tmp_path)), quiet=True)


@pytest.mark.parametrize("encoding", ["GSM610", "IMA_ADPCM", "MS_ADPCM"])
def test_a_sound_in_a_lossy_encoding_is_written_without_further_loss(
    tmp_path: Path, encoding: str
) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)
    soundfile.write(tmp_path / "a.wav", noise, 8000, subtype=encoding)
    signal = signals.read_signal(tmp_path / "a.wav")
    signals.write(tmp_path / "b.wav", signal)
    again = signals.read_signal(tmp_path / "b.wav").values
    np.testing.assert_allclose(again, signal.values.clip(-1, 1), atol=2**-23)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_sounds_that_lost_something_are_read_and_written_without_loss(
    tmp_path: Path, suffix: str
) -> None:
    soundfile.write(
        tmp_path / f"a.{suffix}", np.random.default_rng(0).uniform(-0.1, 0.1, (4000, 2)), 16000
    )
    signal = signals.read_signal(tmp_path / f"a.{suffix}")
    assert signals.suffixes_for(signal) == (".wav", ".flac")
    for name in ("b.wav", "b.flac"):
        signals.write(tmp_path / name, signal)
        np.testing.assert_allclose(
            signals.read_signal(tmp_path / name).values, signal.values, atol=2**-23
        )
