"""Printed output of a contest, and its row of results."""

from collections.abc import Mapping
from typing import NamedTuple

from distvae.bench.output import Output

SECTION = "Beside other programs"
"""The heading of these rows on their page."""


class Contestants(NamedTuple):
    """The two programs of a contest and their training."""

    case: str
    peer: str
    version: str
    """The peer with its commit."""


def show_contest(
    who: Contestants, figures: Mapping[str, float], settings: Mapping[str, int], output: Output
) -> None:
    """Print the figures of a contest, and keep them as a row."""
    threads = settings["threads"]
    record: dict[str, int | float | str] = {"case": who.case, "peer": who.version}
    record |= settings
    record |= figures
    output.show(record, _describe_epochs(who, figures, threads))
    name = f"{who.case}-beside-{who.peer}" + (f"-{threads}-threads" if threads > 1 else "")
    output.keep(name, figures, settings, {"section": SECTION, "peer": who.version})


def _describe_epochs(who: Contestants, f: Mapping[str, float], threads: int) -> str:
    def spread(name: str, places: int) -> str:
        middle, least, most = (f"{f[name + end]:.{places}f}" for end in ("", "_min", "_max"))
        return f"{middle} ({least} to {most})"

    clock = "processor" if threads == 1 else "wall-clock"
    return (
        f"{who.case}: seconds of an epoch of {f['all_rows']:.0f} rows, {clock} time:"
        f" {who.peer} {spread('peer_s', 1)}, ours {spread('ours_s', 1)}\n"
        f"  {spread('speedup', 2)} times as fast; {f['gflops']:.0f} GFLOP/s"
    )
