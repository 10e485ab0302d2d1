"""`distvae encode`, `sample` and `resynthesize`: use a trained model."""

from pathlib import Path

from distvae.files.refusal import Refusal
from distvae.numerics.numbers import counted


def encode_data(run: Path, data: str, out: Path, split: str, force: bool) -> None:
    """Write the codes of data into a Parquet file."""
    from distvae.commands.evaluate import with_data
    from distvae.data.media import is_single_file
    from distvae.tasks.codes import encode, encode_file
    from distvae.train.run import Run

    trained = Run.open(run)
    if is_single_file(trained.config.data, data):
        if split != "all":
            raise Refusal(f"--split: '{split}', but {data} is one file, in no split; all expected")
        count = encode_file(trained, Path(data), out, force)
    else:
        source = with_data(trained.config, data, trained.info).data
        count = encode(trained, source, out, split, force)
    print(f"{out}: {counted(count, 'code')} of {trained.model.code_size} values")


def sample_prior(run: Path, target: Path, count: int, seed: int, force: bool) -> None:
    """Draw from the prior of a trained model into a picture."""
    from distvae.tasks.codes import sample
    from distvae.train.run import Run

    sample(Run.open(run), target, count, seed, force)


def resynthesize_recording(run: Path, source: Path, target: Path, force: bool) -> None:
    """Encode and decode one recording with a trained model."""
    from distvae.tasks.resynthesis import resynthesize_file
    from distvae.train.run import Run

    resynthesize_file(Run.open(run), source, target, force)
