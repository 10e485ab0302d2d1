"""`distvae tune` sweeps a search space."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from distvae.cli.completion import complete_space
from distvae.cli.options import (
    RUNS,
    Assignments,
    Data,
    Force,
    Quiet,
    TrialOptions,
    command,
)
from distvae.config.recipes import parse_assignments
from distvae.files.packages import refuse_missing

app = typer.Typer(rich_help_panel="Compare models")


@dataclass(frozen=True)
class TuneOptions:
    """The options of `distvae tune`."""

    data: Data = None
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the sweep; default runs/SPACE.")
    ] = None
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Number of trials, or size of a population; default: as the space says.",
        ),
    ] = None
    concurrent: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Trials that run at once; default: as the space says, otherwise as many as fit.",
        ),
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Resume the sweep in that folder.")] = (
        False
    )
    force: Force = False
    keep_tune: Annotated[
        bool,
        typer.Option(
            "--keep-tune",
            help="Keep the experiment of Ray Tune in OUT/tune, with a result for each epoch.",
        ),
    ] = False
    quiet: Quiet = False


@command(app)
def tune(
    space: Annotated[
        str,
        typer.Argument(
            metavar="SPACE|FILE.yaml", help="See 'distvae spaces'.", autocompletion=complete_space
        ),
    ],
    assignments: Assignments = None,
    *,
    options: TuneOptions,
    trial_options: TrialOptions,
) -> None:
    """Sweep a search space for quality against sparsity; every trial is recorded in MLflow."""
    from distvae.report import write_and_log
    from distvae.tune.results import print_findings
    from distvae.tune.sweep import SweepOptions, run_sweep
    from distvae.tune.validation import load_space

    refuse_missing("a sweep", "ray", "optuna", "mlflow")
    resources = trial_options.resources()
    searched = load_space(space)
    sweep_options = SweepOptions(
        assignments=parse_assignments(assignments or []),
        data=options.data or "",
        trials=options.trials,
        concurrent=options.concurrent,
        resume=options.resume,
        force=options.force,
        keep_tune=options.keep_tune,
        quiet=options.quiet,
    )
    findings = run_sweep(searched, options.out or RUNS / searched.name, sweep_options, resources)
    if not options.quiet:
        print_findings(findings)
    write_and_log(findings.folder, RUNS, options.quiet)
    raise SystemExit(findings.exit_code)
