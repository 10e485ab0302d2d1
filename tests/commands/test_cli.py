"""Commands as a user types them: working ones, refused ones, and the files left after a signal."""

import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import distvae
from distvae.cli.train import MEASURED, describe_rows, follow, suggest_batch
from distvae.cli.use import print_scores
from distvae.config.recipes import load, parse_assignments, recipe_names
from distvae.data import open_dataset
from distvae.data.dataset import Dataset
from distvae.data.ingest import Division, ingest
from distvae.files.refusal import Refusal
from distvae.models.vae import VAE
from distvae.track import Tracker
from distvae.track.tracker import read_record
from distvae.train.loop import Epoch, Interrupted
from distvae.train.progress import Progress
from distvae.train.run_folder import TakenOver, read_epochs
from distvae.train.session import fit
from distvae.tune.space import space_names
from tests import tiny
from tests.called import Called
from tests.processes import started
from tests.track.records import RECORD, tracker

SMALL = [
    "train.epochs=2",
    "train.warmup=10",
    "model.latent=4",
    "model.hidden=[8]",
    "estep.hidden=[8]",
]
LIGHT = ["--no-evaluate", "--no-track"]
BARS = ["data.rows=200", "train.epochs=2", "estep.sweeps=1", "train.seed=3", *LIGHT]


@pytest.fixture(autouse=True)
def elsewhere(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run in an empty folder, with a cache that all these tests share."""
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("DISTVAE_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small run, and with one of frames of 22 samples."""
    folder = tmp_path_factory.mktemp("trained")
    list(fit(tiny.config(), tiny.dataset(), folder / "run"))
    list(fit(tiny.config(data={"window": 22, "hop": 11}), tiny.dataset(), folder / "speech"))
    return folder


def test_the_version_is_that_of_the_installed_package(
    call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("--version") == (0, f"distvae {version('distvae')}\n", "")
    assert distvae.__version__ == version("distvae")
    monkeypatch.setattr(sys, "path", [])  # where distributions are looked for
    assert distvae.__version__ == "0+unknown"


def test_recipes_are_listed_and_shown(call: Called) -> None:
    code, out, _ = call("recipes")
    named = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert (code, sorted(named)) == (0, sorted([*recipe_names(), *space_names()]))
    assert named[:3] == ["table", "images", "speech"]
    code, out, _ = call("recipes", "speech-sdm")
    assert (code, "dictionary: identity" in out) == (0, True)


REFUSED = {
    "train bars --epochs 5": "--epochs: no such option; a setting is given as train.epochs=5",
    "train --epochs=5 bars": "--epochs: no such option; a setting is given as train.epochs=5",
    "train bars --sed 5": "--sed: no such option; did you mean '--seed'?",
    "tune demo --batch 3": "--batch: no such option; a setting is given as train.batch=3",
    "recipes latin.yaml": "latin.yaml",
    "train speech-vea": "did you mean 'speech-vae'",
    "train speech-vae train.epocs=3": (
        "train.epocs: no such field of train.kind 'adam'; did you mean 'epochs'?"
    ),
    "train speech-vae train.epochs": "KEY=VALUE expected",
    "train speech-vae --data absent": "absent does not exist",
    "train mnist-vae --data one data.size=[8,8]": (
        "; for what is in one: distvae train speech --data"
    ),
    "train mnist-vae --data one data.kind=idx data.size=[8,8]": "known: holdout, path, split\n",
    "train mnist-vae --data hf://datasets/x data.siz=3": "data.siz: no such field",
    "train speech-vae --data empty": "no recordings",
    "train speech-vae --data one": "speaker",
    "train mnist-vae": "a folder of idx files expected",
    "train mnist-vae --data empty": "train-images-idx3-ubyte",
    "train sprites-vae data.path=empty": (
        "data.path: empty, but data of kind 'sprites' is made, not read; none expected"
    ),
    "train absent.yaml": "absent.yaml",
    "train broken.yaml": "broken.yaml: not YAML: while parsing a flow node expected the node",
    "train late.yaml": "late.yaml: not YAML: month must be in 1..12",
    "train odd.yaml train.rate=0.1": (
        "odd.yaml: model.latnt: no such field of model.kind 'vae'; did you mean 'latent'?"
    ),
    "train odd.yaml model.kind=gumbel train.rate=-1": "distvae: train.rate: -1.0 is out of range",
    "train bars data.kind=rows --data huge --quiet": "'gaussian' with a value of 2e+37",
    "show sweep": "sweep: a sweep; one of the runs in its folder trials, or best:METRIC@SWEEP, e",
    "show empty": "empty: not a run folder",
    "sample empty PICTURE.png": "empty: not a run folder",
    "evaluate run train.epochs=3": "train.epochs",
    "encode run empty -o codes.parquet": "codes.parquet: exists",
    "train bars -o file": "file: cannot write into file; a writable folder",
    "tune demo -o file/sweep": "file/sweep: cannot write into",
    "reproduce bars -o bars --rows file/rows": "file/rows: cannot write into",
    "encode run run -o file/codes.parquet": "file/codes.parquet: cannot write into file",
    "resynthesize speech a.wav file/b.wav": "file/b.wav: cannot write into file",
    "evaluate run -o file/judged": "file/judged: Not a directory",
} | ({} if torch.cuda.is_available() else {"train sprites-vae train.device=cuda": "train.device"})


@pytest.fixture(scope="module")
def bad(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs and of files that commands refuse."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("bad") / "here")
    for name in ("empty", "sweep", "one/speaker"):
        (folder / name).mkdir(parents=True)
    (folder / "sweep" / "sweep.json").write_text("{}")
    (folder / "latin.yaml").write_bytes(b"about: caf\xe9\n")
    (folder / "broken.yaml").write_text("model: [")
    (folder / "late.yaml").write_text("about: 2020-99-99")
    (folder / "odd.yaml").write_text("model: {kind: vae, latnt: 3}")
    for name in ("file", "codes.parquet"):
        (folder / name).write_text("mine")
    sound = 0.1 * np.random.default_rng(0).normal(size=8000)
    soundfile.write(folder / "one" / "speaker" / "a.wav", sound, 16000)
    np.save(folder / "huge.npy", np.full((40, 3), 1e37) * np.arange(3))
    ingest([folder / "huge.npy"], folder / "huge", Division(val=0.1, test=0.1), quiet=True)
    return folder


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_done_is_refused_in_a_sentence_and_changes_nothing(
    call: Called, bad: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(bad)
    before = sorted(bad.rglob("*"))
    code, out, err = call(*line.split(), *(LIGHT if line.startswith("train") else []))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert REFUSED[line] in err
    assert sorted(bad.rglob("*")) == before
    assert {Path(name).read_text() for name in ("file", "codes.parquet")} == {"mine"}


@pytest.mark.slow
def test_a_name_that_is_no_text_is_printed(tmp_path: Path) -> None:
    """The sound library cannot read a file of such a name."""
    soundfile.write(tmp_path / "plain.wav", np.zeros(400), 16000)
    (tmp_path / "plain.wav").rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    with start_process("data", "check", os.fsdecode(b"caf\xe9.wav")) as process:
        out, err = process.communicate()
    assert (process.returncode, "Traceback" in err) == (2, False)
    assert r"caf\udce9.wav: " in out + err


def test_a_run_is_trained_shown_continued_and_trained_again(call: Called) -> None:
    """It is continued by its folder alone, and its settings are trained again elsewhere."""
    code, out, err = call("train", "bars", "--out", "some/run", "--json", *BARS)
    assert (code, err) == (0, "")
    assert [json.loads(line)["epoch"] for line in out.splitlines()] == [1, 2]
    assert call("train", "bars", "--out", "whole", "--quiet", *BARS, "train.epochs=4")[:2] == (
        0,
        "",
    )
    run, whole = Path("some/run"), Path("whole")
    before = (run / "epochs.jsonl").read_bytes()

    for more, reason in ([], "--resume"), (["--resume", "train.seed=4"], "train.seed"):
        code, _, err = call("train", "bars", "--out", "some/run", *BARS, *more)
        assert (code, reason in err) == (2, True)
    code, _, err = call("train", "some/run/", *LIGHT)
    assert (code, "; into runs/bars\n" in err) == (0, True)
    assert err.startswith("bars: bars, 200 train")
    assert (run / "epochs.jsonl").read_bytes() == before
    assert call("train", "some/run", "train.epochs=4", "--resume", *LIGHT)[0] == 0
    assert (run / "epochs.jsonl").read_bytes().startswith(before)

    found = {folder: read_epochs(folder) for folder in (run, whole, Path("runs/bars"))}
    bounds = {folder: [each["val_bound"] for each in epochs] for folder, epochs in found.items()}
    assert bounds[run] == bounds[whole] == [*bounds[Path("runs/bars")], *bounds[whole][2:]]
    assert len(bounds[whole]) == 4


def test_a_training_that_ends_early_says_so(call: Called) -> None:
    words = ["data.rows=200", "train.epochs=50", "train.patience=1", "train.rate=0.3", *LIGHT]
    code, _, err = call("train", "bars", "--out", "run", *words)
    epochs = len(read_epochs(Path("run")))
    assert (code, epochs < 50) == (0, True)
    assert f"\nended early, after epoch {epochs} of 50 (train.patience" in err


def test_a_training_that_ends_while_it_forms_a_dictionary_says_so(call: Called) -> None:
    words = ["data.atoms=20", "data.active=2", "data.rows=100", "model.latent=20", *LIGHT]
    code, _, err = call("train", "atoms-ssc", "--out", "run", *words, "train.epochs=3")
    assert (code, "\nmodel.cycles: 16 cycles were left" in err) == (0, True)
    code, _, err = call("train", "atoms-ssc", *words, "train.epochs=2", "model.cycles=0")
    assert (code, "model.cycles:" in err) == (0, False)


def test_a_run_is_shown_with_its_best_epoch_and_its_time_so_far(
    call: Called, trained: Path
) -> None:
    run = shutil.copytree(trained / "run", Path("run"))
    code, out, _ = call("show", "run")
    assert (code, "best at epoch" in out, "latent: 4" in out) == (0, True, True)
    info = json.loads((run / "run.json").read_text())
    del info["seconds"]
    (run / "run.json").write_text(json.dumps(info | {"commit": None}))
    first, *_ = (run / "epochs.jsonl").read_text().splitlines()
    longer = json.dumps(json.loads(first) | {"epoch": 5, "seconds": 77.0})
    (run / "epochs.jsonl").write_text(f"{first}\n{longer}\n")
    (run / "evaluation" / "test").mkdir(parents=True)
    (run / "evaluation" / "test" / "summary.json").write_text('{"squared_error": 0.000123}')
    out = call("show", "run")[1]
    for said in ("not from a checkout", "trained for 2 epochs, 77 s;", "squared_error 0.000123"):
        assert said in out


@pytest.mark.parametrize(
    ("tables", "counts"),
    [("abc", "4 train, 3 val, 2 test images"), ("abb", "4 train, 3 val and test images")],
)
def test_splits_that_are_the_same_rows_are_counted_once(tables: str, counts: str) -> None:
    rows = {name: np.zeros((4 - place, 2), np.float32) for place, name in enumerate("abc")}
    splits = dict(zip(("train", "val", "test"), (rows[name] for name in tables), strict=True))
    assert describe_rows(Dataset("some", "image", "", splits, Path())) == f"some, {counts}"


@pytest.mark.parametrize("recipe", ["house-50", "speech-vae", "mnist-vsc", "speech-sdm"])
def test_a_larger_batch_is_suggested_where_it_was_measured_and_needed(recipe: str) -> None:
    config = load(recipe)
    advice, stretch = suggest_batch(config, 8), MEASURED.get(config.model.kind)
    assert suggest_batch(config, 1) == ""
    assert suggest_batch(load(recipe, {"train.batch": 64}), 2) == ""
    if stretch is None:
        assert advice == ""
        return
    settings = [word for word in advice.replace(";", " ").split() if word.startswith("train.")]
    train = load(recipe, parse_assignments(settings)).train
    assert config.train.batch < train.batch <= stretch.times * config.train.batch
    assert (train.scale_rate, train.base_batch) == (stretch.scaling, config.train.batch)
    assert f"8 workers have {config.train.batch // 8} rows each" in advice
    largest = {"train.batch": stretch.times * config.train.batch, "train.scale_rate": "root"}
    assert suggest_batch(load(recipe, largest), 256) == ""


@pytest.mark.slow
def test_other_data_is_judged_beside_the_runs_own_and_other_widths_are_refused(
    call: Called, tmp_path: Path
) -> None:
    for seed, (name, side) in enumerate({"own": 4, "my other": 4, "wide": 5}.items()):
        images = np.random.default_rng(seed).integers(0, 255, (30, side, side), np.uint8)
        np.savez(f"{name}.npz", x_train=images[:20], x_test=images[20:])
    data = {"kind": "images", "path": str(tmp_path / "own.npz")}
    config = tiny.config(data=data, model={"likelihood": "bernoulli"})
    list(fit(config, open_dataset(config.data), tmp_path / "run"))
    Path("own.npz").rename("moved.npz")
    assert call("evaluate", "run", "--data", "my other.npz", "--quiet") == (0, "", "")
    assert call("evaluate", "run", "data.path=moved.npz", "--quiet") == (0, "", "")
    judged = {
        path.name: (path / "summary.json").read_text() for path in Path("run/evaluation").iterdir()
    }
    assert judged.keys() == {"test", "test-of-my-other.npz"}
    assert len(set(judged.values())) == 2
    for words in ("evaluate run --data wide.npz", "encode run wide.npz -o codes.parquet"):
        code, _, err = call(*words.split())
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
    Path("drawn").mkdir()
    for number in range(9):
        image = np.random.default_rng(number).integers(0, 255, (2, 2), np.uint8)
        Image.fromarray(image).save(f"drawn/{number}.png")
    code, _, err = call("evaluate", "run", "--data", "drawn", "--quiet")
    assert (code, "is made, not read" in err) == (2, True)
    judged = []
    for more in ([], ["data.split=loose", "--force"]):
        words = ["--data", "drawn", "--quiet", "data.kind=images", "data.size=[2, 2]", *more]
        assert call("evaluate", "run", *words) == (0, "", "")
        (found,) = Path("run/evaluation").rglob("summary.json")
        judged.append(found.read_text())
    assert judged[0] == judged[1]


def start_process(*words: str) -> "AbstractContextManager[subprocess.Popen[str]]":
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
    return started(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for_epochs(file: Path, count: int) -> None:
    """Wait until a number of epochs has been recorded."""
    deadline = time.monotonic() + 180
    while not file.exists() or len(file.read_text().splitlines()) < count:
        assert time.monotonic() < deadline, "no epoch in three minutes"
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
    words = [*SMALL, "train.epochs=20", *LIGHT]
    assert call("train", "speech-sdm", "--out", "whole", "--quiet", *words)[0] == 0
    for resume, number in enumerate(numbers):
        options = ["--resume"] * resume
        with start_process("train", "speech-sdm", "--out", "part", *options, *words) as part:
            wait_for_epochs(tmp_path / "part" / "epochs.jsonl", 3 + 5 * resume)
            part.send_signal(number)
            _, err = part.communicate()
        assert part.returncode == (-number if number == signal.SIGKILL else 128 + number)
        assert "Traceback" not in err
        assert len((tmp_path / "part" / "epochs.jsonl").read_text().splitlines()) < 20
    assert call("train", "speech-sdm", "--out", "part", "--quiet", "--resume", *words)[0] == 0
    final = [
        json.loads((tmp_path / name / "last.json").read_text())["sha256"]
        for name in ("whole", "part")
    ]
    assert final[0] == final[1]


@pytest.mark.parametrize("reason", ["CUDA out of memory. Tried to allocate 2.00 GiB", ""])
def test_a_training_that_runs_out_of_memory_says_what_to_lower(
    call: Called, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def objective(*_: object) -> None:
        raise torch.OutOfMemoryError(f"{reason}. GPU 0 has") if reason else MemoryError

    monkeypatch.setattr(VAE, "objective", objective)
    words = ["train", "sprites-vae", "data.rows=100", "--out", "run", "--quiet"]
    code, _, err = call(*words, *SMALL, *LIGHT)
    assert code == 2
    assert err == (
        f"distvae: sprites-vae: training a vae ran out of memory ({reason or 'MemoryError'}); less"
        " of train.batch=64, model.latent=4, model.hidden=[8], estep.hidden=[8] expected\n"
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
def test_a_full_disk_is_said_in_a_sentence_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: both fail during a write."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))"
    command = [sys.executable, "-c", f"{limited}\nfrom distvae.cli import main; main()"]
    words = ["train", "bars", "--out", "run", *BARS]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no room left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run").is_dir()
    assert not list((tmp_path / "run").glob("*.partial*"))


def test_a_profile_is_a_trace_of_steps_of_one_process(call: Called, tmp_path: Path) -> None:
    words = ("train", "bars", "--out", "run", "--profile", "--no-evaluate", "--no-track")
    code, _, said = call(*words, "train.epochs=6")
    assert code == 0
    assert "profile.json: a trace" in said
    events = json.loads((tmp_path / "run" / "profile.json").read_text())["traceEvents"]
    assert any(event.get("name") == "aten::addmm" for event in events)
    code, _, said = call(*words, "train.epochs=1", "--force")
    assert code == 0
    assert "profile.json: not written, too few steps" in said
    code, _, said = call(*words, "--workers", "2")
    assert (code, "--profile: several workers; one process expected" in said) == (2, True)


@pytest.mark.slow
def test_the_whole_line_from_recordings_to_codes(call: Called, tmp_path: Path) -> None:
    """Train, evaluate and record a run, resynthesise, encode, sample, and train it again."""
    code, out, _ = call("train", "speech-sdm", "--out", "run", "eval.processes=1", *SMALL)
    assert (code, "stoi" in out) == (0, True)
    assert (tmp_path / "run" / "evaluation" / "test" / "spectrogram.png").stat().st_size > 10_000
    assert (tmp_path / "runs" / "mlflow.db").exists()
    cache = Path(os.environ["DISTVAE_CACHE"])
    source = next(cache.rglob("*.flac"), None) or next(cache.rglob("*.wav"))
    assert call("resynthesize", "run", str(source), "heard.wav")[0] == 0
    assert soundfile.info("heard.wav").frames == soundfile.info(str(source)).frames
    assert call("encode", "run", "built-in speech", "-o", "codes.parquet")[0] == 0
    import pyarrow.parquet as pq

    table = pq.read_table("codes.parquet")
    assert table.schema.names == ["file", "speaker", "split", "frame", "code"]
    assert call("sample", "run", "drawn.png")[0] == 0
    assert call("train", "run/config.yaml", "--out", "again", *LIGHT)[0] == 0
    bounds = [[each["val_bound"] for each in read_epochs(Path(name))] for name in ("run", "again")]
    assert bounds[0] == bounds[1]
    light = ["eval.processes=1", "eval.metrics=[]"]
    assert call("evaluate", "run", "--split", "val", "eval.latent=sample", *light)[0] == 0
    assert call("evaluate", "run", "--split", "val")[0] == 2
    assert call("evaluate", "run", "data.split=seeded", "--quiet", *light)[0] == 0
    judged = sorted(path.name for path in Path("run/evaluation").iterdir())
    assert judged == ["test", "test-of-built-in-speech", "val"]


@pytest.mark.slow
def test_trials_that_match_are_told_where_only_runs_are_listed(
    call: Called, tmp_path: Path
) -> None:
    sweep = tracker(tmp_path / "runs", "sweep")
    record = tracker(tmp_path / "runs", "sweep/trials/1", tmp_path / "runs" / "sweep")
    record.figures({"hoyer": 0.5})
    for each in (record, sweep):
        each.close()
    where = ("--where", "metrics.hoyer > 0.4 and params.model.kind = 'vae'")
    code, out, _ = call("runs", *where)
    assert (code, out.splitlines()[-1]) == (0, "none of these, but 1 trial (--kind trial)")
    out = call("runs", "--kind", "trial", *where)[1]
    assert ("none of these" in out, "finished" in out.lower()) == (False, True)
    assert "none of these" not in call("runs", "--where", "metrics.hoyer > 0.9")[1]


def test_scores_are_printed_with_their_spread_and_programs_read_null_for_no_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = {
        "pesq_wb": 2.5,
        "pesq_wb_std": math.nan,
        "stoi": 0.75,
        "stoi_std": 0.125,
        "iw_bound": -80.5,
        "iw_bound_row_std": 12.5,
    }
    print_scores(summary, "json")
    text = capsys.readouterr().out
    assert "NaN" not in text
    assert json.loads(text) == {"summary": summary | {"pesq_wb_std": None}}
    print_scores(summary, "line")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["pesq_wb", "stoi", "iw_bound", "iw_bound_row_std"]
    assert lines[1][2:4] == ["+-", "0.1250"]


FEW = ("--no-track", "train.epochs=1", "train.batch=20")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "table", "--data", "a table.npy"),
        ("train", "bars", "data.rows=40"),
        pytest.param(("train", "speech-vae", "eval.metrics=[si_sdr]"), marks=pytest.mark.slow),
        ("ingest", "a table.npy", "some rows"),
        ("evaluate", "runs/bars", "--force"),
    ],
    ids=" ".join,
)
def test_the_command_that_is_printed_last_runs(
    words: tuple[str, ...], tmp_path: Path, call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a table.npy", np.random.default_rng(0).random((40, 5)))
    if words[0] == "evaluate":
        assert call("train", "bars", *FEW, "--no-evaluate")[0] == 0
    code, out, said = call(*words, *(FEW if words[0] == "train" else ()))
    assert code == 0, said
    *before, line = out.splitlines()
    advised = [line.partition("next: ")[2]]
    if words[:2] == ("train", "speech-vae"):
        advised.append(before[-1].partition("as many principal components: ")[2])
    for command in advised:
        program, *after = shlex.split(command)
        assert program == "distvae"
        code, _, said = call(*after, *(FEW if after[0] == "train" else ()))
        assert code == 0, said
