"""Evaluations: their files, pictures, scores of rows and recordings, and progress."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.config import Config, PatchData, SpeechData, from_dict
from distvae.data import audio, open_dataset, signals
from distvae.data.synthesiser import RATE, utterance
from distvae.data.windows import Grid
from distvae.files.refusal import Refusal
from distvae.interactive import kept_rows
from distvae.numerics.metrics import hoyer, live_atoms
from distvae.tasks import baselines
from distvae.tasks.evaluate import (
    CodeStrength,
    Evaluation,
    announce,
    evaluate,
    frame_means,
    score_recordings,
    score_rows,
    score_run,
    with_news,
)
from distvae.tasks.resynthesis import run_coder
from distvae.tasks.run_pictures import added, as_images
from distvae.train.run import Run
from tests import tiny
from tests.tasks.conftest import trained

TABLES = {
    f"{name}.{kind}" for name in ("files", "speakers", "refused") for kind in ("csv", "parquet")
}
DRAWN = {"images.png", "codes.png", "atoms.png", "alone.png", "learning.png", "summary.json"}


def test_what_a_latent_adds_is_its_weight_in_a_linear_decoder() -> None:
    chance = np.random.default_rng(0)
    weights = chance.normal(size=(7, 5)).astype(np.float32)
    states = chance.integers(0, 2, size=(9, 7)).astype(np.float32)
    found = added(lambda z: z @ weights - 3, states, np.array([4, 0, 6]))
    np.testing.assert_allclose(found, weights[[4, 0, 6]], atol=1e-5)


def test_an_error_is_the_mean_of_the_rows_that_have_values(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    table = chance.normal(size=(90, 5))
    table[::2], table[chance.random(90) < 0.5, 2] = np.nan, np.nan
    data = {"kind": "rows", "path": str(kept_rows(table))}
    config = tiny.config(data=data, model={"likelihood": "gaussian"}, estep={"input": "raw"})
    dataset = open_dataset(config.data, quiet=True)
    run = trained(config, tmp_path / "run")
    rows = dataset.splits["test"][:]
    seen = ~np.isnan(rows).all(1)
    assert 0 < (~np.isnan(rows)).all(1).sum() < seen.sum() < len(rows)
    errors = np.nanmean((run.reconstruct(rows[seen]) - rows[seen]) ** 2, axis=1)
    assert score_rows(run, "test").summary["squared_error"] == pytest.approx(errors.mean())


@pytest.mark.slow
def test_an_evaluation_writes_its_files_and_leaves_nothing_of_the_one_that_it_replaces(
    speech_run: Run, bars_run: Run, tmp_path: Path
) -> None:
    evaluate(bars_run, progress=False)
    assert names(bars_run.path / "evaluation" / "test") == DRAWN
    with pytest.raises(Refusal, match="not empty"):
        evaluate(bars_run)
    for name in ("mine.txt", "dictionary.png"):
        (tmp_path / name).touch()
    evaluate(bars_run, tmp_path, force=True, progress=False)
    own = {"mine.txt", "dictionary.png"}
    assert names(tmp_path) == DRAWN | own, "it was not an evaluation's"
    evaluate(speech_run, tmp_path, force=True, progress=False)
    drawn = {"spectrogram.png", "codes.png", "atoms.png", "dictionary.png", "learning.png"}
    sounds = {"original.wav", "reconstruction.wav"}
    assert names(tmp_path) == TABLES | drawn | sounds | {"summary.json", "mine.txt"}
    data = speech_run.config.data
    assert isinstance(data, SpeechData)
    first = audio.load_recording(Path(data.path) / "test" / "cat" / "0.wav", data)
    assert {soundfile.info(tmp_path / name).frames for name in sounds} == {len(first)}
    evaluate(bars_run, tmp_path, force=True, progress=False)
    assert names(tmp_path) == DRAWN | {"mine.txt"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["colour.png", "stereo.wav"])
def test_windows_are_seen_as_they_were_cut_and_judged_by_their_error(
    name: str, tmp_path: Path
) -> None:
    path, random = tmp_path / name, np.random.default_rng(0)
    if name == "colour.png":
        signals.write(path, signals.Signal(random.integers(0, 256, (9, 8, 3)).astype(float)))
    else:
        signals.write(path, signals.Signal(random.uniform(-1, 1, (60, 2)), rate=8000))
    window = [4, 3] if name == "colour.png" else [12]
    tree = {
        "data": {"kind": "patches", "path": str(path), "window": window},
        "model": {"kind": "tvae", "latent": 5, "hidden": []},
        "estep": {"states": 8, "parents": 3, "children": 2},
        "train": {"epochs": 1, "batch": 8, "device": "cpu"},
    }
    window_run = trained(from_dict(tree), tmp_path / "run")
    data = window_run.config.data
    assert isinstance(data, PatchData)
    array = signals.read_signal(Path(data.path)).values
    cut = Grid(array.shape, data.window).cut(array.astype(np.float32))
    corner = array[np.ix_(*map(np.arange, data.window))].astype(np.float32)
    np.testing.assert_array_equal(as_images(cut, window_run)[0], corner)
    summary = score_run(window_run).summary
    window_run.shape = ()  # as in a run from before it was written down
    np.testing.assert_array_equal(as_images(cut, window_run)[0], corner)
    rows = open_dataset(data, quiet=True).splits["train"]
    with torch.no_grad():
        q = window_run.posterior(torch.from_numpy(rows), torch.arange(len(rows)))
        states, weight = q.points(0, None)
        decoded = np.einsum("bs,bsd->bd", weight.numpy(), window_run.model.decode(states).numpy())
    assert summary["windows"] == len(rows)
    expected = float(np.square(decoded - rows).mean())
    assert summary["squared_error"] == pytest.approx(expected, rel=1e-4)
    assert not summary.keys() & {"pesq_wb", "stoi", "si_sdr", "isd", "images"}


@pytest.fixture(scope="module")
def judgement(speech_run: Run) -> Evaluation:
    return score_run(speech_run, "test")


def test_every_recording_has_its_row_and_tables_come_back_from_disk(
    judgement: Evaluation, tmp_path: Path
) -> None:
    files, summary = judgement.files, judgement.summary
    assert files is not None
    assert list(files["file"]) == ["test/cat/0.wav", "test/cat/1.wav", "test/dan/0.wav"]
    assert list(files["speaker"]) == ["cat", "cat", "dan"]
    columns = ["stoi", "si_sdr", "isd", "hoyer", "hoyer_active", "effective_atoms", "active"]
    assert list(files.columns) == ["file", "speaker", "seconds", *columns]
    scores = files["si_sdr"].to_numpy()
    assert summary["si_sdr"] == pytest.approx(scores.mean())
    spread = np.std([scores[:2].mean(), scores[2]], ddof=1)
    assert summary["si_sdr_std"] == pytest.approx(spread)
    assert summary["live_atoms"] + summary["dead_atoms"] == 8
    replace(judgement, summary=summary | {"stoi": float("nan")}).save(tmp_path)
    again = pandas.read_parquet(tmp_path / "files.parquet")
    pandas.testing.assert_frame_equal(again, files)
    read = pandas.read_csv(tmp_path / "files.csv", dtype={"active": float})
    pandas.testing.assert_frame_equal(read, files, rtol=1e-5)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary | {"stoi": None}
    assert len(pandas.read_csv(tmp_path / "speakers.csv")) == 2
    assert len(pandas.read_csv(tmp_path / "refused.csv")) == 0


def test_whole_recordings_are_scored_with_the_ends_that_training_does_not_see(
    speech_run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "test" / "eve" / "0.wav"
    path.parent.mkdir(parents=True)
    speech, silence = utterance(0, 0), np.zeros(RATE // 2, np.float32)
    soundfile.write(path, np.concatenate([silence, speech, silence]), RATE)
    config = speech_run.config.with_("data", path=str(tmp_path), split="loose")
    seconds = {}
    for recordings in ("trimmed", "whole"):
        asked = config.with_("eval", recordings=recordings, metrics=["isd"])
        files = score_recordings(run_coder(speech_run, "mean"), asked, "test").files
        assert files is not None
        seconds[recordings] = float(files["seconds"][0])
    assert seconds["whole"] == (len(speech) + RATE) / RATE
    assert seconds["trimmed"] < len(speech) / RATE + 0.2


def test_a_sample_has_as_many_recordings_as_asked_spread_evenly(
    speech_run: Run, image_run: Run
) -> None:
    config, code = speech_run.config.with_("eval", metrics=["isd"]), run_coder(speech_run, "mean")
    whole = score_recordings(code, config, "all").files
    assert whole is not None
    for count in (1, 3, 6):
        files = score_recordings(code, config, "all", sample=count).files
        assert files is not None
        assert len(files) == min(count, len(whole))
        places = [list(whole["file"]).index(file) for file in files["file"]]
        steps = np.diff([*places, len(whole)])
        assert steps.max() - steps.min() <= 1
    for run in (speech_run, image_run):
        with pytest.raises(Refusal, match=r"split 'tets'.*test"):
            score_run(run, "tets")


@pytest.mark.slow
def test_two_processes_find_what_one_finds(judgement: Evaluation, speech_run: Run) -> None:
    config = speech_run.config.with_("eval", processes=2)
    both = score_recordings(run_coder(speech_run, "mean"), config, "test")
    assert both.summary == judgement.summary


def test_a_file_that_a_measure_refuses_is_named_and_left_out_of_the_mean(
    speech: Path, speech_config: Config, tmp_path: Path
) -> None:
    root = tmp_path / "speech"
    shutil.copytree(speech, root)
    soundfile.write(root / "test" / "dan" / "short.wav", utterance(3, 0)[8000:12000], RATE)
    config = speech_config.with_("data", path=str(root)).with_("eval", metrics=["stoi"])
    judged = score_recordings(baselines.baseline_coder("pca-8", config.data), config, "test")
    assert judged.files is not None
    assert [(r.file, r.metric) for r in judged.refused] == [("test/dan/short.wav", "stoi")]
    assert judged.summary["stoi_refused"] == 1
    assert judged.summary["stoi"] == pytest.approx(np.mean(judged.files["stoi"].dropna()))


def test_images_are_judged_by_the_bound_that_training_reported(image_run: Run) -> None:
    best = max(image_run.epochs(), key=lambda epoch: epoch["val_objective"])
    summary = score_run(image_run, "test").summary
    for name in ("bound", "objective", "kl", "hoyer"):
        assert summary[name] == pytest.approx(best[f"val_{name}"], rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 49))
def test_strength_does_not_depend_on_where_the_data_is_cut(seed: int, cut: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    code = torch.randn(50, 6, generator=generator) * 10.0 ** -torch.arange(6)
    code *= torch.rand(50, 6, generator=generator) < 0.5
    strength = CodeStrength()
    strength.add(code[:cut])
    strength.add(code[cut:])
    live = live_atoms(code)
    scaled = code[:, live] / code[:, live].square().mean(0).sqrt()
    assert strength.figures() == {
        "live_atoms": int(live.sum()),
        "dead_atoms": int((~live).sum()),
        "hoyer_scaled": pytest.approx(float(hoyer(scaled).nanmean()), rel=1e-5),
    }
    nothing = CodeStrength()
    nothing.add(torch.zeros(3, 2))
    assert nothing.figures() == {"live_atoms": 0, "dead_atoms": 2}


@pytest.mark.parametrize("loudest", [1e-4, 1e4])
def test_quiet_frames_do_not_count_as_active(loudest: float) -> None:
    code = torch.tensor([[1.0, 0, 0, 0], [1.0, 1, 1, 1], [0, 0, 0, 0]])
    means = frame_means(code, loudest * torch.tensor([1.0, 0.9e-3, 1.0]))
    counted = {"effective_atoms": 2.5, "active": pytest.approx(5 / 3)}
    assert means == {"hoyer": 0.5, "hoyer_active": 1.0, **counted}


def test_lines_tell_how_much_is_done_and_how_long_the_rest_takes_if_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each item takes four seconds by this clock, and a line comes every ten."""
    seconds = iter(range(0, 1000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))
    assert list(with_news("abcdefgh", 8, "scoring", wanted=True)) == list("abcdefgh")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["scoring: 3 of 8, 0:20 left", "scoring: 6 of 8, 0:08 left"]
    assert list(with_news("abcdefgh", 8, "scoring", wanted=False)) == list("abcdefgh")
    announce("drawing", wanted=False)
    assert capsys.readouterr() == ("", "")
