import json
import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile

from distvae.config import Config
from distvae.data.synthesiser import RATE, utterance
from distvae.files.refusal import Refusal
from distvae.system import available_cores
from distvae.tasks.baselines import speech as baselines
from distvae.tasks.evaluation import Evaluation
from distvae.tasks.resynthesis import run_coder
from distvae.tasks.scoring import count_processes, score_recordings, score_run
from distvae.train.run import Run


@pytest.fixture(scope="module")
def judgement(speech_run: Run) -> Evaluation:
    return score_run(speech_run, "test")


def test_every_recording_of_the_split_has_its_row(judgement: Evaluation) -> None:
    assert judgement.files is not None
    assert list(judgement.files["file"]) == ["test/cat/0.wav", "test/cat/1.wav", "test/dan/0.wav"]
    assert list(judgement.files["speaker"]) == ["cat", "cat", "dan"]
    columns = ["stoi", "si_sdr", "isd", "hoyer", "hoyer_active", "effective_atoms"]
    assert list(judgement.files.columns) == ["file", "speaker", "seconds", *columns]


def test_the_summary_is_the_mean_over_files_and_its_spread_over_speakers(
    judgement: Evaluation,
) -> None:
    assert judgement.files is not None
    scores = judgement.files["si_sdr"].to_numpy()
    assert judgement.summary["si_sdr"] == pytest.approx(scores.mean())
    assert judgement.summary["si_sdr_std"] == pytest.approx(
        np.std([scores[:2].mean(), scores[2]], ddof=1)
    )
    assert judgement.summary["live_atoms"] + judgement.summary["dead_atoms"] == 8


def test_a_speaker_has_mean_spread_and_number_of_files(judgement: Evaluation) -> None:
    assert judgement.files is not None
    assert judgement.speakers is not None
    cat = judgement.speakers.set_index("speaker").loc["cat"]
    scores = judgement.files["isd"].to_numpy()[:2]
    assert (cat["isd"], cat["isd_std"], cat["files"]) == pytest.approx(
        (scores.mean(), scores.std(ddof=1), 2)
    )


def test_judging_again_gives_the_same(judgement: Evaluation, speech_run: Run) -> None:
    assert score_run(speech_run, "test").summary == judgement.summary


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
        asked = config.with_("eval", recordings=recordings)
        files = score_recordings(run_coder(speech_run, "mean"), asked, "test").files
        assert files is not None
        seconds[recordings] = float(files["seconds"][0])
    assert seconds["whole"] == (len(speech) + RATE) / RATE
    assert seconds["trimmed"] < len(speech) / RATE + 0.2


def test_every_recording_can_be_judged_at_once(speech_run: Run) -> None:
    assert score_run(speech_run, "all").summary["files"] == 5


def test_a_sample_has_as_many_recordings_as_asked_spread_evenly(speech_run: Run) -> None:
    config, code = speech_run.config.with_("eval", metrics=["isd"]), run_coder(speech_run, "mean")
    whole = score_recordings(code, config, "all").files
    assert whole is not None
    for count in range(1, 7):
        files = score_recordings(code, config, "all", sample=count).files
        assert files is not None
        assert len(files) == min(count, len(whole))
        places = [list(whole["file"]).index(file) for file in files["file"]]
        steps = np.diff([*places, len(whole)])
        assert steps.max() - steps.min() <= 1


def test_an_unknown_split_is_refused(speech_run: Run, image_run: Run) -> None:
    for run in (speech_run, image_run):
        with pytest.raises(Refusal, match=r"split 'tets'.*test"):
            score_run(run, "tets")


@pytest.mark.slow
def test_two_processes_find_what_one_finds(judgement: Evaluation, speech_run: Run) -> None:
    config = speech_run.config.with_("eval", processes=2)
    both = score_recordings(run_coder(speech_run, "mean"), config, "test")
    assert both.summary == judgement.summary


def test_little_audio_is_judged_where_it_is(judgement: Evaluation, speech_run: Run) -> None:
    """To start a process costs more than to score these recordings, unless processes are asked
    for.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = score_recordings(
        run_coder(speech_run, "mean"), speech_run.config.with_("eval", processes=None), "test"
    )
    assert resource.getrusage(resource.RUSAGE_CHILDREN) == before
    assert found.summary == judgement.summary


def test_processes_are_as_many_as_have_enough_to_do(speech_config: Config, tmp_path: Path) -> None:
    minute = tmp_path / "minute.wav"
    soundfile.write(minute, np.zeros(60 * RATE), RATE)
    cores, automatic = available_cores(), speech_config.with_("eval", processes=None)
    asked = speech_config.with_("eval", processes=3)
    worth = [
        count_processes(automatic, ["stoi", "estoi"], [minute] * count)
        for count in (1, 5, 10, 20, 200)
    ]
    assert worth == [min(cores, count) for count in (1, 1, 2, 4, 40)]
    assert [count_processes(asked, ["stoi"], [minute] * count) for count in (1, 2, 9)] == [1, 2, 3]
    assert count_processes(automatic, [], [minute] * 200) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not kept to cores")
def test_processes_are_no_more_than_the_cores_that_this_one_may_use(
    speech_config: Config, tmp_path: Path
) -> None:
    minute = tmp_path / "minute.wav"
    soundfile.write(minute, np.zeros(60 * RATE), RATE)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        found = count_processes(
            speech_config.with_("eval", processes=None), ["stoi", "estoi"], [minute] * 200
        )
    finally:
        os.sched_setaffinity(0, cores)
    assert found == 1


def test_a_file_that_a_measure_refuses_is_named_and_left_out_of_the_mean(
    speech: Path, speech_config: Config, tmp_path: Path
) -> None:
    root = tmp_path / "speech"
    shutil.copytree(speech, root)
    soundfile.write(root / "test" / "dan" / "short.wav", utterance(3, 0)[8000:12000], RATE)
    config = speech_config.with_("data", path=str(root))
    judged = score_recordings(baselines.baseline_coder("pca-8", config.data), config, "test")
    assert judged.files is not None
    assert [(r.file, r.metric) for r in judged.refused] == [("test/dan/short.wav", "stoi")]
    assert judged.summary["stoi_refused"] == 1
    assert judged.summary["stoi"] == pytest.approx(np.mean(judged.files["stoi"].dropna()))


def test_tables_and_summary_come_back_from_disk(judgement: Evaluation, tmp_path: Path) -> None:
    broken = replace(judgement, summary=judgement.summary | {"stoi": float("nan")})
    broken.save(tmp_path)
    files = pandas.read_parquet(tmp_path / "files.parquet")
    assert judgement.files is not None
    pandas.testing.assert_frame_equal(files, judgement.files)
    pandas.testing.assert_frame_equal(pandas.read_csv(tmp_path / "files.csv"), files, rtol=1e-5)
    assert json.loads((tmp_path / "summary.json").read_text()) == judgement.summary | {"stoi": None}
    assert len(pandas.read_csv(tmp_path / "speakers.csv")) == 2
    assert len(pandas.read_csv(tmp_path / "refused.csv")) == 0


def test_images_are_judged_by_the_bound_that_training_reported(image_run: Run) -> None:
    best = max(image_run.epochs(), key=lambda epoch: epoch["val_objective"])
    summary = score_run(image_run, "test").summary
    reported = [best["val_bound"], best["val_objective"], best["val_kl"], best["val_hoyer"]]
    assert [summary[name] for name in ("bound", "objective", "kl", "hoyer")] == pytest.approx(
        reported, rel=1e-6
    )


def test_the_squared_error_of_images_is_that_of_their_decoded_codes(
    image_run: Run, images: Path
) -> None:
    from distvae.data import open_dataset

    x = open_dataset(image_run.config.data).splits["test"][:]
    error = np.square(image_run.decode(image_run.encode(x)) - x).mean()
    assert score_run(image_run, "test").summary["squared_error"] == pytest.approx(error, rel=1e-5)
