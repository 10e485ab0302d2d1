"""Options that several commands share, each with its help text.

The fields of the classes in this package are the options of the command line: `distvae.cli` reads
their types and help texts. Nothing here imports anything heavy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distvae.commands.completion import complete_recipe, complete_run, complete_setting
from distvae.files.paths import given_path, refusing_bad_paths
from distvae.files.refusal import Refusal
from distvae.tasks.model_choice import Model, is_by_groups
from distvae.train.progress import Style

if TYPE_CHECKING:
    from distvae.files.plain import Plain
    from distvae.machines.worker_group import WorkerGroup
    from distvae.tune.resources import TrialResources

RUNS = Path("runs")
"""The folder of runs and sweeps, and of MLflow's database."""
RUN_HELP = "Its folder, its name or id in MLflow, or best:METRIC@SWEEP."


def find_run(run: Path | str) -> Path:
    """Return the folder of a run that is named by its folder, its name or id in MLflow, or as
    best:METRIC@SWEEP.
    """
    with refusing_bad_paths(str(run), "the name or the folder of a run expected"):
        folder = given_path(run, "run").expanduser()
    if folder.is_dir():  # MLflow is not asked
        return folder
    from distvae.track import Store
    from distvae.track.records import find_folder

    return find_folder(str(run), Store.find(RUNS))


def run_callback(context: typer.Context, run: Path | None) -> Path | None:
    """Return the folder of a run that was named on the command line.

    While the shell completes a later word, it is not looked for.
    """
    return run if run is None or context.resilient_parsing else find_run(run)


Assignments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings to change, such as train.epochs=3.",
        autocompletion=complete_setting,
    ),
]
Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|FILE.yaml|RUN",
        help="See 'distvae recipes'. The folder of a run stands for its settings.",
        autocompletion=complete_recipe,
    ),
]
RunFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", callback=run_callback, help=RUN_HELP, autocompletion=complete_run
    ),
]
Data = Annotated[
    str | None,
    typer.Option(help="Where the data is; default $DISTVAE_DATA, for speech the built-in corpus."),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace an output that exists; of a run or a sweep, delete all files in its folder.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line, for programs.")
]
Split = Literal["train", "val", "test", "all"]
WhichSplit = Annotated[Split, typer.Option(help="Which part of the data.")]
MACHINES = "Workers, GPUs and machines"
"""The panel of help that options for them are in."""
GPUsPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0,
        rich_help_panel=MACHINES,
        help=(
            "GPUs for each worker; 0.25: four workers share one, 0: none. Default: one each, if Ray"
            " has GPUs."
        ),
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of a running Ray; default: start one on this machine.",
        rich_help_panel=MACHINES,
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="How long to wait for machines that are still starting.",
        rich_help_panel=MACHINES,
    ),
]


@dataclass(frozen=True)
class WorkerOptions:
    """The workers that train one model together, and the Ray they run under."""

    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN:MAX",
            rich_help_panel=MACHINES,
            help=(
                "Number of processes that train together under Ray; a range such as 1:4 is elastic."
                " 0: train in this process, without Ray."
            ),
        ),
    ] = "0"
    gpus_per_worker: GPUsPerWorker = None
    address: Address = None
    wait: Wait = 0.0

    def group(self) -> "WorkerGroup | None":
        """Return the group of workers, or None if this process trains alone."""
        from distvae.machines.worker_group import WorkerGroup

        if self.workers != "0":
            return WorkerGroup.parse(self.workers, self.gpus_per_worker, self.address, self.wait)
        if self.gpus_per_worker:
            raise Refusal("--gpus-per-worker: there are no workers; --workers N expected")
        return None


@dataclass(frozen=True)
class TrialOptions:
    """The workers and GPUs of each trial of a sweep, and the Ray they run under."""

    workers: Annotated[
        str,
        typer.Option(
            metavar="N|MIN:MAX",
            rich_help_panel=MACHINES,
            help=(
                "Number of processes that train each model together; a range such as 1:4 is"
                " elastic. 0: one process per model."
            ),
        ),
    ] = "0"
    gpus_per_worker: GPUsPerWorker = None
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GPUs for each model without --workers; 0.25: four share one.",
            rich_help_panel=MACHINES,
        ),
    ] = None
    address: Address = None
    wait: Wait = 0.0

    def resources(self) -> "TrialResources":
        """Return the resources of each trial."""
        from distvae.tune.resources import TrialResources

        gpus = (self.gpus_per_worker, self.gpus_per_trial)
        return TrialResources.parse(self.workers, *gpus, self.address, self.wait)


def progress_style(quiet: bool, json: bool) -> Style:
    """Return how a command reports its progress: nothing, JSON for programs, or lines."""
    if quiet:
        return "quiet"
    return "json" if json else "line"


WITHOUT_TRAINING = (
    *("train.seed", "train.sigma"),
    *("data.noise", "data.noise_seed", "data.snr", "data.drop", "data.rate", "data.excerpt"),
)
"""Settings that also a restoration without training takes."""
DAMAGE = {"noise": "--add-noise", "snr": "--snr", "drop": "--drop"}
"""The options that damage a clean input, by the setting of the data that they stand for."""
DAMAGE_PANEL = "Damage a clean input first, to measure the restoration"


@dataclass(frozen=True)
class RestoreOptions:
    """The options of `distvae denoise` and `distvae inpaint`."""

    model: Annotated[
        Model | None,
        typer.Option(
            help="groups (default) compares windows and takes seconds; tvae (default for gaps of"
            " sounds) is trained, as --preset, --recipe or a setting also ask."
        ),
    ] = None
    preset: Annotated[
        Literal["fast", "balanced", "paper"] | None,
        typer.Option(
            help="How much time to spend; default fast. 'paper' uses the published settings."
        ),
    ] = None
    recipe: Annotated[
        str | None, typer.Option(help="Use this recipe or FILE.yaml instead of a preset.")
    ] = None
    stride: Annotated[
        int | None,
        typer.Option(
            min=1, help="Step from one window to the next; larger is faster and less accurate."
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of training, and of the noise or gaps made first.")
    ] = 0
    clean: Annotated[
        Path | None,
        typer.Option(help="A clean reference to compare with; it does not affect the result."),
    ] = None
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw before, after and reference into a .png, .pdf or .svg."),
    ] = None
    across: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="FRAMES",
            help="Of a stack (a TIFF of several pictures): search for similar windows in so many"
            " frames before and behind; 0 restores each alone.",
        ),
    ] = 2
    run: Annotated[
        Path | None,
        typer.Option(
            help="Keep the run in this folder; default: OUT.run, deleted after the last epoch."
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was stopped or killed.")
    ] = False
    force: Force = False
    quiet: Quiet = False
    json: AsJson = False

    @property
    def replaces(self) -> bool:
        """Return whether outputs that exist may be replaced."""
        return self.force or self.resume

    @property
    def style(self) -> Style:
        """Return how progress is reported."""
        return progress_style(self.quiet, self.json)

    def __post_init__(self) -> None:
        """Refuse two ways to choose the settings."""
        if self.preset and self.recipe:
            raise Refusal("--preset, --recipe: both are given; one of them expected")

    def are_for_groups(self, keys: Iterable[str], has_gaps: bool) -> bool:
        """Return whether groups of windows restore a file, and no model is trained, given these
        settings too.
        """
        named = {"--preset": self.preset, "--recipe": self.recipe, "--run": self.run}
        trained = [name for name, value in named.items() if value is not None]
        trained += [key for key in keys if key not in WITHOUT_TRAINING]
        if self.stride is not None:
            trained.append("--stride")
        return is_by_groups(self.model, "--model", trained, has_gaps)

    def overrides(
        self, assignments: list[str], sigma: float | None = None, **damage: float | None
    ) -> "dict[str, Plain]":
        """Return the settings that these options stand for, `--sigma` and the damage done first,
        such as `noise`, among them, and those that were assigned. Noise and gaps of these options
        have --seed unless data.noise_seed was assigned; those of keys have it if it is not 0.
        """
        from distvae.config.recipes import parse_assignments, with_options

        options = {DAMAGE[name]: (f"data.{name}", each) for name, each in damage.items()}
        options |= {"--sigma": ("train.sigma", sigma), "--stride": ("data.stride", self.stride)}
        assigned = parse_assignments(assignments)
        given = with_options(assigned, options)
        settings: dict[str, Plain] = {"train.seed": self.seed}
        by_option = any(each is not None for each in damage.values())
        if by_option or (self.seed and any(f"data.{name}" in assigned for name in damage)):
            settings["data.noise_seed"] = self.seed
        return settings | given
