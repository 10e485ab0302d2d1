from pathlib import Path

import pytest
import soundfile

from distvae.data import audio
from distvae.refusal import Refusal
from distvae.tasks.evaluate import evaluate
from distvae.train.run import Run

TABLES = {f"{name}.{suffix}" for name in ("files", "speakers", "refused") for suffix in ("csv", "parquet")}


def test_everything_of_a_speech_run_lands_in_its_own_folder(speech_run: Run) -> None:
    evaluate(speech_run, split="test")
    folder = speech_run.path / "evaluation" / "test"
    drawn = {"spectrogram.png", "codes.png", "atoms.png", "dictionary.png", "learning.png"}
    sounds = {"original.wav", "reconstruction.wav"}
    assert {path.name for path in folder.iterdir()} == TABLES | drawn | sounds | {"summary.json"}
    first = audio.load(Path(speech_run.config.data.path) / "test" / "cat" / "0.wav", speech_run.config.data)
    assert {soundfile.info(folder / name).frames for name in sounds} == {len(first)}
    with pytest.raises(Refusal, match="not empty"):
        evaluate(speech_run, split="test")


def test_everything_of_a_run_on_images_lands_where_it_is_wanted(image_run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    judgement = evaluate(image_run, tmp_path, force=True)
    drawn = {"images.png", "codes.png", "atoms.png", "learning.png"}
    assert {path.name for path in tmp_path.iterdir()} == drawn | {"summary.json", "there"}
    assert judgement.summary["images"] == 40
