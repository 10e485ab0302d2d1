"""Figures, pictures and sounds as HTML for a notebook."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

from distvae.report.media import picture, sound


def figures_table(figures: Mapping[str, float]) -> str:
    """Return a table of figures."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{value:.4g}</td></tr>" for name, value in figures.items()
    )
    return f"<table>{rows}</table>"


def exhibits(folder: Path) -> str:
    """Return the pictures and sounds in a folder."""
    return "".join([*_pictures(folder.glob("*.png")), *_sounds(folder.glob("*.wav"))])


def _pictures(files: Iterable[Path]) -> Iterator[str]:
    for file in sorted(files):
        yield (
            f"<details><summary>{file.stem}</summary>"
            f'<img src="{picture(file)}" alt="{file.stem}"></details>'
        )


def _sounds(files: Iterable[Path]) -> Iterator[str]:
    for file in sorted(files):
        yield f'<p>{file.stem} <audio controls src="{sound(file)}"></audio></p>'
