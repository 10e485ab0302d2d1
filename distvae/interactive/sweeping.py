"""`distvae.tune`: run a sweep from Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from distvae.cli.options import RUNS
from distvae.config.schema import whole_number
from distvae.config.values import Trials
from distvae.files.paths import given_path
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Plain
from distvae.interactive.given import Data, data_settings
from distvae.interactive.pages import states_table
from distvae.report import write_and_log
from distvae.report.media import picture
from distvae.train.run import Run
from distvae.tune.results import Findings, Result, html_table, ranking_table
from distvae.tune.space import Space, read_space
from distvae.tune.sweep import SweepOptions, run_sweep
from distvae.tune.validation import load_space, validate_space


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep. A notebook displays a table and the Pareto front if it exists."""

    findings: Findings

    @property
    def folder(self) -> Path:
        """The folder of the sweep, which contains `report.html`."""
        return self.findings.folder

    @property
    def trials(self) -> list[Result]:
        """The finished trials, sorted by the first metric, best first."""
        return [result for result in self.findings.results if result.state == "finished"]

    @property
    def front(self) -> list[Result]:
        """The trials on the Pareto front of all metrics."""
        return [result for result in self.trials if result.unbeaten]

    def run(self, trial: Result) -> Run:
        """Open the run of a trial; with several seeds, the run of the first seed."""
        folder = self.folder / "trials" / str(trial.number)
        runs = [file.parent for file in folder.rglob("run.json")]
        if not runs:
            raise Refusal(f"{folder}: holds no run; a trial that was trained expected")
        return Run.open(min(runs, key=lambda run: (len(run.name), run.name)))

    def _repr_html_(self) -> str:
        finished = self.trials
        if finished:
            table = html_table(ranking_table(finished, list(self.findings.metrics)))
        else:
            table = states_table(self.findings.results)
        front = self.folder / "tradeoff.png"
        shown = f'<img src="{picture(front)}" alt="the front">' if front.is_file() else ""
        return f"<p>{escape(str(self.folder / 'report.html'))}</p>{table}{shown}"


def tune(
    space: str | Path | Mapping[str, Plain],
    data: Data | None = None,
    *,
    trials: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
) -> Sweep:
    """Sweep a space on this machine. The space is a name, a file or a mapping.

    Ray trains several trials in parallel.
    """
    if trials is not None:
        trials = whole_number("trials", Trials, trials)
    explored = _space(space)
    folder = RUNS / explored.name if out is None else given_path(out, "out")
    options = SweepOptions(
        assignments=data_settings(explored.base, data),
        trials=trials,
        resume=resume,
        force=force,
    )
    findings = run_sweep(explored, folder, options)
    if findings.interrupted:
        raise KeyboardInterrupt(f"{folder}: stopped; resume=True continues")
    write_and_log(folder, RUNS, quiet=True)
    return Sweep(findings)


def _space(space: str | Path | Mapping[str, Plain]) -> Space:
    """Read and validate a space."""
    if not isinstance(space, Mapping):
        return load_space(str(space))
    read = read_space("sweep", space)
    validate_space(read)
    return read
