"""What there is to see and hear of a judged run."""

from collections.abc import Sequence

from distvae.report.blocks import Exhibit, Picture, Sound
from distvae.report.reading import Evidence

CAPTIONS = {
    "spectrogram": "The first recording: original, reconstruction, and how they differ.",
    "images": "Originals above their reconstructions.",
    "codes": "How the values of the code are used.",
    "atoms": "What each value of the code does alone.",
    "dictionary": "The dictionary.",
    "learning": "How training went.",
}
ORIGINALS = ("images",)
"""The pictures that are data themselves."""
SOUNDS = {"original": "Original", "reconstruction": "Reconstruction"}


def exhibit(
    run: Evidence, split: str, title: str, names: Sequence[str] = tuple(CAPTIONS)
) -> Exhibit:
    """The pictures of these names, and the sounds, that judging a split wrote."""
    folder = run.at(split)
    sounds = [Sound(folder / f"{name}.wav", caption) for name, caption in SOUNDS.items()]
    pictures = [Picture(folder / f"{name}.png", CAPTIONS[name]) for name in names]
    return Exhibit(
        title,
        [sound for sound in sounds if sound.file.is_file()],
        [each for each in pictures if each.file.is_file()],
    )
