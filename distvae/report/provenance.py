"""What was run: the program, the machine, the data, how long it took, and how to repeat it."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from distvae.report import repeat
from distvae.report.blocks import Block, Code, Text, facts
from distvae.report.numbers import counted
from distvae.report.reading import Evidence, Sweep
from distvae.train.progress import format_duration


def provenance(sweep: Sweep) -> Iterator[Block]:
    """The last part of a sweep's report."""
    told, runs = sweep.facts, sweep.runs
    yield facts([*_origin(runs), *_times(sweep)])
    if "command" in told:
        yield Code(told["command"], "To repeat it, with the folder of the data after --data:")
    elif written := repeat.space(told):
        repeated = shlex.join(["distvae", "tune", f"{told['name']}.yaml"])
        yield Code(repeated, "To repeat it, save the space below as a file, and type:")
        yield Code(written, f"{told['name']}.yaml", folded=True)
    else:
        yield Text(
            f"The recipe {told['recipe']} is not known here, so the space cannot be written out;"
            " see sweep.json."
        )


def _origin(runs: Sequence[Evidence]) -> Iterator[tuple[str, str]]:
    """What the runs noted of the program, the machine and the data; all of them, should they
    differ.
    """
    if not runs:
        yield "program", "not noted: no trial began to train"
    yield "commit", _all(str(run.info.get("commit") or "not from a checkout") for run in runs)
    yield "versions", _all(pairs(run.info["versions"]) for run in runs)
    yield "machine", _all(pairs(run.info["machine"]) for run in runs)
    yield "data", _all(described(run) for run in runs)
    yield "digest of the data", _all(str(run.info["data_digest"]) for run in runs)
    yield "seeds", _all(str(run.config.train.seed) for run in runs)


def _all(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))


def _times(sweep: Sweep) -> Iterator[tuple[str, str]]:
    told, seconds = (
        sweep.facts,
        [trial.result.seconds for trial in sweep.trials if trial.result.seconds],
    )
    yield (
        "search",
        f"{told['search']}, seed {told['seed']}, {counted(told['seeds'], 'run')} of each trial",
    )
    yield (
        "poor trials",
        (
            "none is stopped early"
            if told["scheduler"] == "none"
            else f"stopped by {told['scheduler']}"
        ),
    )
    begun = [trial.datetime_start for trial in sweep.remembered if trial.datetime_start]
    ended = [trial.datetime_complete for trial in sweep.remembered if trial.datetime_complete]
    if begun and ended:
        yield "begun, and ended", f"{min(begun):%Y-%m-%d %H:%M}, {max(ended):%Y-%m-%d %H:%M}"
        yield (
            "time in all",
            f"{format_duration((max(ended) - min(begun)).total_seconds())}, pauses included",
        )
    if seconds:
        low, high = format_duration(min(seconds)), format_duration(max(seconds))
        beside = f", {told['concurrent']} side by side"
        yield (
            "time of trials",
            f"{format_duration(sum(seconds))} together, {low} to {high} each{beside}",
        )


def pairs(part: dict[str, Any]) -> str:
    """Names and values in a line."""
    return ", ".join(f"{name} {value}" for name, value in part.items() if value is not None)


def described(run: Evidence) -> str:
    """The data of a run, in words."""
    return f"{run.info['data']} ({counts(run)})"


def counts(run: Evidence) -> str:
    """How many rows the data of a run has."""
    told = ", ".join(f"{count:,} {split}" for split, count in run.info["rows"].items())
    return f"{told} {run.unit}s"
