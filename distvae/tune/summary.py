"""Summary of a sweep, as Markdown for MLflow's pages."""

from collections.abc import Sequence

from distvae.files.markdown import markdown_table
from distvae.tune.results import Result
from distvae.tune.space import Space

DIRECTIONS = {"max": "larger is better", "min": "smaller is better"}


def describe_findings(space: Space, ranked: Sequence[Result]) -> str:
    """Return what a sweep asked, its best trials and, with two figures or more, its front."""
    finished = [result for result in ranked if result.state == "finished"]
    lines = [space.about.strip(), "", f"{len(finished)} of {len(ranked)} trials finished."]
    best = [_describe_best(space, name, finished) for name in space.metrics]
    front = [result for result in finished if result.unbeaten]
    table = _table(space, front) if len(space.metrics) > 1 else []
    return "\n".join([*lines, "", *(best if finished else []), *table]).strip()


def _describe_best(space: Space, name: str, finished: Sequence[Result]) -> str:
    """Return the best trial in one figure."""
    direction = space.metrics[name]
    choose = max if direction == "max" else min
    best = choose(finished, key=lambda result: result.figures[name], default=None)
    if best is None:
        return ""
    figure = f"{best.figures[name]:.4g}"
    return f"- Best {name} ({DIRECTIONS[direction]}): {figure}, trial {best.number}, {best.label}"


def _table(space: Space, front: Sequence[Result]) -> list[str]:
    """Return a table of the trials that no other trial beats."""
    if not front:
        return []
    rows = []
    for result in front:
        figures = [f"{result.figures[name]:.4g}" for name in space.metrics]
        rows.append([str(result.number), result.label, *figures])
    table = markdown_table(["trial", "settings", *space.metrics], rows)
    return ["", "The front, which no other trial beats:", "", *table]
