"""Metrics, pictures and sounds as HTML for a notebook."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path

from distvae.numerics.metrics import SPREAD, without_spreads
from distvae.report.media import picture, sound
from distvae.tune.results import Result


def figures_table(figures: Mapping[str, float]) -> str:
    """Return a table of metrics, with their standard deviations if these are known."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{figures[name]:.4g}{_deviation(figures, name)}</td></tr>"
        for name in without_spreads(figures)
    )
    return f"<table>{rows}</table>"


def _deviation(figures: Mapping[str, float], name: str) -> str:
    spread = figures.get(name + SPREAD)
    return "" if spread is None else f" &plusmn; {spread:.2g}"


def states_table(results: Iterable[Result]) -> str:
    """Return a table of the states of trials, and their causes."""
    rows = "".join(
        f"<tr><td>{result.number}</td><td>{result.state}</td><td>{escape(result.cause)}</td></tr>"
        for result in results
    )
    return f"<table><tr><th>trial</th><th>state</th><th>cause</th></tr>{rows}</table>"


def exhibits(folder: Path) -> str:
    """Return the pictures and sounds in a folder."""
    return "".join([*_pictures(folder.glob("*.png")), *_sounds(folder.glob("*.wav"))])


def _pictures(files: Iterable[Path]) -> Iterator[str]:
    """Yield collapsible pictures; the first picture is open."""
    for number, file in enumerate(sorted(files)):
        name, state = escape(file.stem), "" if number else " open"
        yield (
            f"<details{state}><summary>{name}</summary>"
            f'<img src="{picture(file)}" alt="{name}"></details>'
        )


def _sounds(files: Iterable[Path]) -> Iterator[str]:
    for file in sorted(files):
        yield f'<p>{escape(file.stem)} <audio controls src="{sound(file)}"></audio></p>'
