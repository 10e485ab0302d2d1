"""The pictures and sounds of an evaluated run."""

from collections.abc import Sequence

from distvae.report.blocks import Exhibit, Picture, Sound
from distvae.report.reading import RunResults

CAPTIONS = {
    "spectrogram": "The first recording: original, reconstruction, and their difference.",
    "images": "Originals above their reconstructions.",
    "codes": "How the values of the code are used.",
    "atoms": "The effect of each value of the code alone.",
    "dictionary": "The dictionary.",
    "learning": "The course of training.",
}
ORIGINALS = ("images",)
"""Pictures that show the data itself."""
SOUNDS = {"original": "Original", "reconstruction": "Reconstruction"}


def exhibit(
    run: RunResults, split: str, title: str, names: Sequence[str] = tuple(CAPTIONS)
) -> Exhibit:
    """Collect the named pictures and the sounds that the evaluation of a split wrote."""
    folder = run.evaluation_folder(split)
    sounds = [Sound(folder / f"{name}.wav", caption) for name, caption in SOUNDS.items()]
    pictures = [Picture(folder / f"{name}.png", CAPTIONS[name]) for name in names]
    return Exhibit(
        title,
        [sound for sound in sounds if sound.file.is_file()],
        [picture for picture in pictures if picture.file.is_file()],
    )
