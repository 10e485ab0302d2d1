"""The provenance of a sweep: program, machine, data, time, and how to repeat it."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from distvae.files.plain import Plain, Tree
from distvae.numerics.numbers import counted
from distvae.report import repeat
from distvae.report.blocks import Block, Code, Text, facts
from distvae.report.reading import RunResults, Sweep
from distvae.train.progress import format_duration


def provenance(sweep: Sweep) -> Iterator[Block]:
    """Build the last section of a sweep's report."""
    recorded = sweep.facts
    yield facts([*_origin(sweep.runs), *_times(sweep)])
    if "command" in recorded:
        yield Code(recorded["command"], "To repeat it, with the data's folder after --data:")
        return
    space = repeat.space(recorded)
    if not space:
        yield Text(
            f"The recipe {recorded['recipe']} is not known here, so the space cannot be written "
            "out; see sweep.json."
        )
        return
    file = f"{recorded['name']}.yaml"
    command = shlex.join(["distvae", "tune", file])
    yield Code(command, "To repeat it, save the space below as a file, and type:")
    yield Code(space, file, folded=True)


def _origin(runs: Sequence[RunResults]) -> Iterator[tuple[str, str]]:
    """Yield the program, machine and data of the runs; every variant, if they differ."""
    if not runs:
        yield "program", "unknown: no trial started training"
    yield "commit", _distinct(str(run.info.get("commit") or "not from a checkout") for run in runs)
    yield "versions", _distinct(pairs(run.info["versions"]) for run in runs)
    yield "machine", _distinct(pairs(run.info.get("machine", {})) for run in runs)
    yield "data", _distinct(data_summary(run) for run in runs)
    yield "data digest", _distinct(str(run.info["data_digest"]) for run in runs)
    yield "seeds", _distinct(str(run.config.train.seed) for run in runs)


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _times(sweep: Sweep) -> Iterator[tuple[str, str]]:
    recorded = sweep.facts
    runs = f"{counted(recorded['seeds'], 'run')} of each trial"
    yield "search", f"{recorded['search']}, seed {recorded['seed']}, {runs}"
    yield "poor trials", _policy(recorded)
    begun = [trial.datetime_start for trial in sweep.sampled if trial.datetime_start]
    ended = [trial.datetime_complete for trial in sweep.sampled if trial.datetime_complete]
    if begun and ended:
        first, last = min(begun), max(ended)
        yield "started, ended", f"{first:%Y-%m-%d %H:%M}, {last:%Y-%m-%d %H:%M}"
        yield "total time", f"{format_duration((last - first).total_seconds())}, pauses included"
    seconds = [trial.result.seconds for trial in sweep.trials if trial.result.seconds]
    if seconds:
        span = f"{format_duration(min(seconds))} to {format_duration(max(seconds))} each"
        parallel = f"{recorded['concurrent']} side by side"
        yield "time of trials", f"{format_duration(sum(seconds))} together, {span}, {parallel}"


def _policy(recorded: Tree) -> str:
    """Return what happened to poor trials, in words."""
    scheduler, judge = recorded["scheduler"], recorded.get("judge")
    if scheduler == "none":
        return "none is stopped early"
    deed = "replaced by branches of better ones" if scheduler == "population" else "stopped"
    by = f"{judge['metric']} every {judge['interval']} epochs" if judge else "their bounds"
    return f"{deed} ({scheduler}), by {by}"


def pairs(part: Mapping[str, Plain]) -> str:
    """Join names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in part.items() if value is not None)


def data_summary(run: RunResults) -> str:
    """Return the name of a run's data and its row counts."""
    return f"{run.info['data']} ({row_counts(run)})"


def row_counts(run: RunResults) -> str:
    """Return the number of rows in each split of a run's data."""
    counts = ", ".join(f"{count:,} {split}" for split, count in run.info["rows"].items())
    return f"{counts} {run.unit}s"
