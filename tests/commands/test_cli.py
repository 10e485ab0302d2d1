"""Commands as a user types them: working ones, refused ones, and the files left after a signal."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer
from PIL import Image
from typer.core import TyperCommand, TyperGroup

import distvae
from distvae.cli import app
from distvae.cli.train import follow
from distvae.cli.use import print_scores
from distvae.config.recipes import recipe_names
from distvae.data import open_dataset
from distvae.files.refusal import Refusal
from distvae.models.vae import VAE
from distvae.track import Tracker
from distvae.track.tracker import read_record
from distvae.train.loop import Epoch, Interrupted
from distvae.train.progress import Progress
from distvae.train.run_folder import TakenOver
from distvae.train.session import fit
from tests import tiny
from tests.called import Called
from tests.track.records import RECORD

SMALL = [
    "train.epochs=2",
    "train.warmup=10",
    "model.latent=4",
    "model.hidden=[8]",
    "estep.hidden=[8]",
]
LIGHT = ["--no-evaluate", "--no-track"]


@pytest.fixture(autouse=True)
def elsewhere(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run in an empty folder, with a cache that all these tests share."""
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("DISTVAE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small run, and with one of frames of 22 samples."""
    folder = tmp_path_factory.mktemp("trained")
    list(fit(tiny.config(), tiny.dataset(), folder / "run"))
    list(fit(tiny.config(data={"window": 22, "hop": 11}), tiny.dataset(), folder / "speech"))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a small trained run."""
    return shutil.copytree(trained / "run", tmp_path / "run")


def test_the_version_is_that_of_the_installed_package(
    call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call("--version")
    assert (code, out) == (0, f"distvae {version('distvae')}\n")
    assert distvae.__version__ == version("distvae")
    monkeypatch.setattr(sys, "path", [])  # where distributions are looked for
    assert distvae.__version__ == "0+unknown"


def test_help_lists_every_command_in_a_panel_and_breaks_no_sentence() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert len(group.commands) > 20
    for name, command in group.commands.items():
        assert isinstance(command, TyperCommand | TyperGroup)
        assert isinstance(command.rich_help_panel, str), name
        assert command.help, name
        assert "\n" not in command.help, name


def test_a_sweep_is_not_taken_for_a_run(call: Called, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    code, _, said = call("show", "sweep")
    assert (code, said.count("\n")) == (2, 1)
    assert (
        "sweep: a sweep; one of the runs in its folder trials, or best:METRIC@SWEEP, expected"
        in said
    )


def test_recipes_are_listed_and_shown(call: Called, tmp_path: Path) -> None:
    code, out, _ = call("recipes")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == recipe_names()
    code, out, _ = call("recipes", "speech-sdm")
    assert code == 0
    assert "dictionary: identity" in out
    (tmp_path / "latin.yaml").write_bytes(b"about: caf\xe9\n")
    for name in ("missing.yaml", "latin.yaml"):
        code, out, said = call("recipes", str(tmp_path / name))
        assert (code, out) == (2, "")
        assert name in said


REFUSED = {
    "speech-vea": "did you mean 'speech-vae'",
    "speech-vae train.epocs=3": (
        "train.epocs: no such field of train.kind 'adam'; did you mean 'epochs'?"
    ),
    "speech-vae train.epochs=0": "train.epochs: 0 is out of range; at least 1 expected",
    "speech-vae train.epochs": "KEY=VALUE expected",
    "speech-vae --data absent": "absent does not exist",
    "mnist-vae --data one data.size=[8,8]": "; for what is in one: distvae train speech-sdm --data",
    "mnist-vae --data one": "; for what is in one: distvae train speech-sdm --data",
    "mnist-vae --data one data.kind=idx data.size=[8,8]": "known: holdout, path, split\n",
    "mnist-vae --data one model.latent=a": "model.latent: 'a' is not a whole number\n",
    "mnist-vae --data hf://datasets/x data.siz=3": "data.siz: no such field",
    "speech-vae --data empty": "no recordings",
    "speech-vae --data one": "speaker",
    "mnist-vae": "a folder of idx files expected",
    "mnist-vae --data empty": "train-images-idx3-ubyte",
    "bars --data empty": (
        "data.path: empty, but data of kind 'bars' is made, not read; none expected"
    ),
    "sprites-vae data.path=empty": (
        "data.path: empty, but data of kind 'sprites' is made, not read; none expected"
    ),
    "absent.yaml": "absent.yaml",
    "broken.yaml": "broken.yaml: not YAML: while parsing a flow node expected the node content",
    "late.yaml": "late.yaml: not YAML: month must be in 1..12",
    "odd.yaml": "odd.yaml: model.latnt: no such field of model.kind 'vae'; did you mean 'latent'?",
    "odd.yaml train.rate=0.1": "odd.yaml: model.latnt: no such field",
    "odd.yaml model.kind=gumbel train.rate=-1": "distvae: train.rate: -1.0 is out of range",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_trained_is_refused_in_a_sentence(
    call: Called, tmp_path: Path, line: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.yaml").write_text("model: [")
    (tmp_path / "late.yaml").write_text("about: 2020-99-99")
    (tmp_path / "odd.yaml").write_text("model: {kind: vae, latnt: 3}")
    (tmp_path / "one" / "speaker").mkdir(parents=True)
    soundfile.write(
        tmp_path / "one" / "speaker" / "a.wav",
        0.1 * np.random.default_rng(0).normal(size=8000),
        16000,
    )
    code, out, err = call("train", *line.split(), *LIGHT)
    assert code == 2
    assert REFUSED[line] in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert not out
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_name_that_is_no_text_is_printed(tmp_path: Path) -> None:
    """Pictures with such a name are read; the sound library cannot read it."""
    stem = os.fsdecode(b"caf\xe9")
    Image.new("L", (9, 8)).save(tmp_path / f"{stem}.png")
    soundfile.write(tmp_path / "plain.wav", np.zeros(400), 16000)
    (tmp_path / "plain.wav").rename(tmp_path / f"{stem}.wav")
    for suffix, expected in (("png", 0), ("wav", 2)):
        process = start_process("data", "check", f"{stem}.{suffix}")
        out, err = process.communicate()
        assert process.returncode == expected
        assert rf"caf\udce9.{suffix}: " in out + err
        assert "Traceback" not in err


def test_data_whose_squares_overflow_are_refused(call: Called, tmp_path: Path) -> None:
    np.save(tmp_path / "huge.npy", np.full((40, 3), 1e37) * np.arange(3))
    call("ingest", str(tmp_path / "huge.npy"), str(tmp_path / "rows"))
    named = ["data.kind=rows", "--data", str(tmp_path / "rows")]
    code, _, err = call("train", "bars", *named, "-o", str(tmp_path / "run"))
    assert code == 2
    assert "'gaussian' with a value of 2e+37 in split 'train'" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_is_refused_where_there_is_none(call: Called, tmp_path: Path) -> None:
    code, _, err = call("train", "sprites-vae", "train.device=cuda", *LIGHT)
    assert (code, "train.device" in err) == (2, True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_training_shows_json_to_programs_and_nothing_when_quiet(
    call: Called, tmp_path: Path
) -> None:
    code, out, err = call("train", "speech-vae", "--json", *SMALL, *LIGHT)
    records = [json.loads(line) for line in out.splitlines()]
    assert (code, err, [record["epoch"] for record in records]) == (0, "", [1, 2])
    assert call("train", "speech-vae", "--quiet", "--force", *SMALL, *LIGHT) == (0, "", "")
    code, _, err = call("train", "speech-vae", *SMALL, *LIGHT)
    assert code == 2
    assert "--resume" in err
    code, _, err = call("train", "speech-vae", "--resume", "train.seed=4", *SMALL, *LIGHT)
    assert (code, "train.seed" in err) == (2, True)


def test_a_run_is_shown_with_its_best_epoch_and_its_time_so_far(call: Called, run: Path) -> None:
    code, out, _ = call("show", str(run))
    assert code == 0
    assert "best at epoch" in out
    assert "latent: 4" in out
    info = json.loads((run / "run.json").read_text())
    del info["seconds"]
    (run / "run.json").write_text(json.dumps(info | {"commit": None}))
    first, *_ = (run / "epochs.jsonl").read_text().splitlines()
    (run / "epochs.jsonl").write_text(first + "\n")
    assert "trained for 1 epoch, " in call("show", str(run))[1]
    longer = json.loads(first) | {"epoch": 5, "seconds": 77.0}
    with (run / "epochs.jsonl").open("a") as lines:
        lines.write(json.dumps(longer) + "\n")
    (run / "evaluation" / "test").mkdir(parents=True)
    (run / "evaluation" / "test" / "summary.json").write_text('{"squared_error": 0.000123}')
    code, out, _ = call("show", str(run))
    assert code == 0
    assert "not from a checkout" in out
    assert "trained for 2 epochs, 77 s;" in out
    assert "squared_error 0.000123" in out


@pytest.mark.parametrize(
    "words", [["show"], ["evaluate"], ["sample", "PICTURE.png"], ["resynthesize", "a.wav", "b.wav"]]
)
def test_a_folder_that_is_no_run_is_refused(call: Called, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "folder").mkdir()
    code, _, err = call(words[0], "folder", *words[1:])
    assert code == 2
    assert "folder: not a run folder" in err


def test_a_trained_model_cannot_be_given_other_keys(call: Called, run: Path) -> None:
    code, _, err = call("evaluate", str(run), "train.epochs=3")
    assert code == 2
    assert "train.epochs" in err


def test_an_existing_output_is_refused_before_anything_is_computed(
    call: Called, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "codes.parquet").write_text("mine")
    code, _, err = call("encode", str(run), str(tmp_path), "-o", "codes.parquet")
    assert code == 2
    assert "codes.parquet: exists" in err
    assert (tmp_path / "codes.parquet").read_text() == "mine"


def archive(name: str, side: int, seed: int) -> None:
    """Write random images, a third of them for testing."""
    images = np.random.default_rng(seed).integers(0, 255, (30, side, side), np.uint8)
    np.savez(name, x_train=images[:20], x_test=images[20:])


@pytest.mark.slow
def test_other_data_is_judged_beside_the_runs_own_and_other_widths_are_refused(
    call: Called, tmp_path: Path
) -> None:
    archive("own.npz", 4, 0)
    archive("my other.npz", 4, 1)
    archive("wide.npz", 5, 2)
    model = {"likelihood": "bernoulli"}
    config = tiny.config(data={"kind": "images", "path": str(tmp_path / "own.npz")}, model=model)
    list(fit(config, open_dataset(config.data), tmp_path / "run"))
    (tmp_path / "own.npz").rename(tmp_path / "moved.npz")
    assert call("evaluate", "run", "--data", "my other.npz", "--quiet") == (0, "", "")
    assert call("evaluate", "run", "--data", "moved.npz", "--quiet") == (0, "", "")
    judged = {
        path.name: (path / "summary.json").read_text() for path in Path("run/evaluation").iterdir()
    }
    assert judged.keys() == {"test", "test-of-my-other.npz"}
    assert len(set(judged.values())) == 2
    for words in (
        ["evaluate", "run", "--data", "wide.npz"],
        ["encode", "run", "wide.npz", "-o", "codes.parquet"],
    ):
        code, _, err = call(*words)
        assert (code, err.count("\n")) == (2, 1)
        assert "of 25 values; 16 expected" in err
    assert not Path("codes.parquet").exists()


@pytest.mark.slow
def test_a_run_on_made_data_is_judged_on_images(call: Called, tmp_path: Path) -> None:
    """All of them count as test: neither run nor command says how to divide them."""
    bars = tiny.config(
        data={"kind": "bars", "size": 2, "rows": 40},
        model={"likelihood": "gaussian"},
        estep={"input": "raw"},
    )
    list(fit(bars, open_dataset(bars.data), tmp_path / "run"))
    (tmp_path / "drawn").mkdir()
    judged = []
    for number in range(9):
        image = np.random.default_rng(number).integers(0, 255, (2, 2), np.uint8)
        Image.fromarray(image).save(tmp_path / "drawn" / f"{number}.png")
    code, _, err = call("evaluate", "run", "--data", "drawn", "--quiet")
    assert (code, "is made, not read" in err) == (2, True)
    for more in ([], ["data.split=loose", "--force"]):
        words = ["--data", "drawn", "--quiet", "data.kind=images", "data.size=[2, 2]", *more]
        assert call("evaluate", "run", *words) == (0, "", "")
        (found,) = Path("run/evaluation").rglob("summary.json")
        judged.append(found.read_text())
    assert judged[0] == judged[1]


@pytest.mark.slow
def test_speech_read_in_another_way_is_not_a_runs_own(call: Called) -> None:
    assert call("train", "speech-vae", "--quiet", "--no-track", *SMALL, *LIGHT)[0] == 0
    for words in ([], ["data.split=seeded"]):
        assert call("evaluate", "runs/speech-vae", "--quiet", "--force", *words)[0] == 0
    judged = sorted(path.name for path in Path("runs/speech-vae/evaluation").iterdir())
    assert judged == ["test", "test-of-built-in-speech"]


UNWRITABLE = {
    "train bars -o file": "file: cannot write into file; a writable folder",
    "tune demo -o file/sweep": "file/sweep: cannot write into",
    "reproduce bars -o file/bars": "file/bars: cannot write into",
    "reproduce bars -o bars --rows file/rows": "file/rows: cannot write into",
    "encode run run -o file/codes.parquet": "file/codes.parquet: cannot write into file",
    "resynthesize speech a.wav file/b.wav": "file/b.wav: cannot write into file",
    "evaluate run -o file/judged": "file/judged: Not a directory",
}


@pytest.mark.parametrize("line", UNWRITABLE)
def test_what_cannot_be_written_is_refused_before_anything_is_done(
    call: Called, trained: Path, run: Path, tmp_path: Path, line: str
) -> None:
    (tmp_path / "file").write_text("mine")
    shutil.copytree(trained / "speech", tmp_path / "speech")
    code, out, err = call(*line.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert UNWRITABLE[line] in err
    assert {path.name for path in tmp_path.iterdir()} == {"file", "run", "speech"}


def start_process(*words: str) -> "subprocess.Popen[str]":
    """Start a command in a new process that Ctrl-C and a hang-up signal end, also where these tests
    ignore them, as background jobs of a shell do.
    """
    program = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from distvae.cli import main
main()
"""
    command = [sys.executable, "-c", program, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def completed(*words: str) -> int:
    """Run a command in a new process and return its exit code."""
    process = start_process(*words)
    process.communicate()
    return process.returncode


def wait_for_epochs(file: Path, count: int) -> None:
    """Wait until a number of epochs has been recorded."""
    deadline = time.monotonic() + 60
    while not file.exists() or len(file.read_text().splitlines()) < count:
        assert time.monotonic() < deadline, "no epoch in a minute"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGKILL, signal.SIGTERM),
        pytest.param((signal.SIGINT, signal.SIGHUP), marks=pytest.mark.long),
    ],
)
def test_a_stopped_training_goes_on_to_the_same_end(
    call: Called, tmp_path: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    """It is stopped twice, in two ways."""
    words = [*SMALL, "train.epochs=40", *LIGHT]
    assert call("train", "speech-sdm", "--out", "whole", "--quiet", *words)[0] == 0
    for resume, number in enumerate(numbers):
        options = ["--resume"] * resume
        part = start_process("train", "speech-sdm", "--out", "part", *options, *words)
        wait_for_epochs(tmp_path / "part" / "epochs.jsonl", 3 + 10 * resume)
        part.send_signal(number)
        _, err = part.communicate()
        assert part.returncode == (-number if number == signal.SIGKILL else 128 + number)
        assert "Traceback" not in err
        assert len((tmp_path / "part" / "epochs.jsonl").read_text().splitlines()) < 40
    assert completed("train", "speech-sdm", "--out", "part", "--quiet", "--resume", *words) == 0
    final = [
        json.loads((tmp_path / name / "last.json").read_text())["sha256"]
        for name in ("whole", "part")
    ]
    assert final[0] == final[1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            "CUDA out of memory. Tried to allocate 2.00 GiB",
        ),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_training_that_runs_out_of_memory_says_what_to_lower(
    call: Called, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def objective(*_: object) -> None:
        raise error

    monkeypatch.setattr(VAE, "objective", objective)
    words = ["train", "sprites-vae", "data.rows=100", "--out", "run", "--quiet"]
    code, _, err = call(*words, *SMALL, *LIGHT)
    assert code == 2
    assert err == (
        f"distvae: sprites-vae: training a vae ran out of memory ({reason}); less of"
        " train.batch=64, model.latent=4, model.hidden=[8], estep.hidden=[8] expected\n"
    )


def test_ctrl_c_while_the_command_line_is_imported_is_told() -> None:
    program = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from distvae.cli import main
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "distvae: interrupted\n")


ENDS: dict[str, tuple[BaseException, str | None]] = {
    "a full disk": (Refusal("epochs.jsonl: no room left on the disk"), "FAILED"),
    "a storage out of reach": (OSError("timeout"), "FAILED"),
    "what nobody foresaw": (RuntimeError("a bug"), "FAILED"),
    "a signal": (Interrupted(), "KILLED"),
    "another training": (TakenOver("another process trains this run"), None),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("epochs", [0, 1])
def test_whatever_ends_a_training_that_was_recorded_closes_its_record(
    tmp_path: Path, name: str, epochs: int
) -> None:
    error, status = ENDS[name]

    def news() -> Iterator[Epoch | str]:
        yield from [RECORD] * epochs
        raise error

    with pytest.raises(type(error)):
        follow(news(), Tracker(tmp_path, None, "here", "one", {}, {}), Progress("quiet", "row"))
    kept = read_record(tmp_path)
    if name == "a full disk" and not epochs:
        assert not kept, "the record of an earlier run in the folder is none of this one's"
    else:
        assert kept.get("status") == status


@pytest.mark.slow
def test_a_full_disk_is_said_in_a_sentence_and_leaves_nothing_half_written(
    call: Called, tmp_path: Path
) -> None:
    """A limit on the size of files stands in for a full disk: both fail during a write."""
    words = ["train", "speech-vae", "--out", "run", *SMALL, *LIGHT]
    assert call(*words, "--quiet")[0] == 0
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    command = [sys.executable, "-c", f"{limited}\nfrom distvae.cli import main; main()"]
    words[words.index("run")] = "other"
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no room left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "other").glob("*.partial*"))
    assert call("show", "run")[0] == 0


@pytest.mark.slow
def test_the_whole_line_from_recordings_to_codes(call: Called, tmp_path: Path) -> None:
    """Train, evaluate and record a run, resynthesise, encode, sample, and train it again."""
    code, out, _ = call("train", "speech-sdm", "--out", "run", "eval.processes=1", *SMALL)
    assert code == 0
    assert "stoi" in out
    assert (tmp_path / "run" / "evaluation" / "test" / "spectrogram.png").stat().st_size > 10_000
    assert (tmp_path / "runs" / "mlflow.db").exists()
    source = next((Path(os.environ["DISTVAE_CACHE"])).rglob("*.flac"), None) or next(
        (Path(os.environ["DISTVAE_CACHE"])).rglob("*.wav")
    )
    assert call("resynthesize", "run", str(source), "heard.wav")[0] == 0
    assert soundfile.info("heard.wav").frames == soundfile.info(str(source)).frames
    assert call("encode", "run", "built-in speech", "-o", "codes.parquet")[0] == 0
    import pyarrow.parquet as pq

    table = pq.read_table("codes.parquet")
    assert table.schema.names == ["file", "speaker", "split", "frame", "code"]
    assert call("sample", "run", "drawn.png")[0] == 0
    assert call("train", "run/config.yaml", "--out", "again", *LIGHT)[0] == 0
    epochs = [
        (tmp_path / name / "epochs.jsonl").read_text().splitlines() for name in ("run", "again")
    ]
    bounds = [[json.loads(line)["val_bound"] for line in lines] for lines in epochs]
    assert bounds[0] == bounds[1]
    assert (
        call("evaluate", "run", "--split", "val", "eval.processes=1", "eval.latent=sample")[0] == 0
    )
    assert call("evaluate", "run", "--split", "val")[0] == 2


SUMMARY = {
    "pesq_wb": 2.5,
    "pesq_wb_std": math.nan,
    "stoi": 0.75,
    "stoi_std": 0.125,
    "iw_bound": -80.5,
    "iw_bound_row_std": 12.5,
}


def test_programs_read_null_where_there_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores(SUMMARY, "json")
    text = capsys.readouterr().out
    assert "NaN" not in text
    assert json.loads(text) == {"summary": SUMMARY | {"pesq_wb_std": None}}


def test_a_figure_is_printed_with_its_spread_and_one_that_is_none_by_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_scores(SUMMARY, "line")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["pesq_wb", "stoi", "iw_bound", "iw_bound_row_std"]
    assert lines[1][2:4] == ["+-", "0.1250"]
