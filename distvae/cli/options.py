"""How functions become commands, the options that several commands share, and their completion.

The shell starts the program at each press of Tab, so nothing heavy is imported. Typer leaves out
the names that do not begin with the incomplete word.
"""

import inspect
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import wraps
from itertools import zip_longest
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Literal,
    TypeGuard,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from distvae.config.recipes import recipe_names
from distvae.config.schema import FAMILIES, default_of, field_types, meanings_of
from distvae.files.paths import given_path, refusing_bad_paths
from distvae.files.program import PACKAGE, SPACES, errors_reported, refuse_missing
from distvae.files.refusal import Refusal
from distvae.train.progress import Style

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from distvae.machines.cluster import WorkerGroup
    from distvae.tune.resources import TrialResources


RUNS = Path("runs")
"""The folder of runs and sweeps, and of MLflow's database."""
LEFT = "_DISTVAE_LEFT"
"""The environment variable with the first part of the last word, which bash does not replace."""


def complete_recipe() -> list[str]:
    """Return the recipes, and the folders of runs here."""
    return [*recipe_names(), *(str(file.parent) for file in RUNS.glob("*/run.json"))]


def complete_run() -> list[str]:
    """Return the folders of runs and sweeps here."""
    return [str(file.parent) for kind in ("run", "sweep") for file in RUNS.glob(f"*/{kind}.json")]


def complete_space() -> list[str]:
    """Return the search spaces."""
    folders = (Path(SPACES.name), SPACES)
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def complete_table() -> list[str]:
    """Return the published tables."""
    return [path.stem for path in (PACKAGE / "reproduce" / "tables").glob("*.yaml")]


def complete_key() -> list[str]:
    """Return the sections and the settings."""
    return [*FAMILIES, *_values()]


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings that begin with the incomplete word, each with the sign `=`.

    If a single setting is left, return its known values too, so that no shell adds a space. After
    the sign, bash itself completes paths.
    """
    left = os.environ.get(LEFT, "")
    name, sign, _ = f"{left}{incomplete}".partition("=")
    values = _values()
    named = [key for key in values if key == name or (not sign and key.startswith(name))]
    words = [] if sign else [f"{key}=" for key in named]
    if len(named) == 1:
        known = values[named[0]] or {path.name for path in Path().iterdir() if not sign}
        words += [f"{named[0]}={value}" for value in sorted(known)]
    return [word.removeprefix(left) for word in words]


def join_words() -> None:
    """Join the words that bash divides at the sign `=`, if bash asks for a completion.

    Bash replaces only what follows the last sign of the last word.
    """
    if os.environ.get("_DISTVAE_COMPLETE") != "complete_bash":
        return
    words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    joined = re.sub(r"\n=(\n(?=.))?", "=", "\n".join(words))
    before, _, last = joined.rpartition("\n")
    is_whole = last == words[-1] or last.startswith("-")  # typer divides --option=value
    left = "" if is_whole else last[: last.rfind("=") + 1]
    os.environ |= {
        "COMP_WORDS": f"{before}\n{last.removeprefix(left)}",
        "COMP_CWORD": str(joined.count("\n")),
        LEFT: left,
    }


def _values() -> dict[str, set[str]]:
    """Return the settings, each with its possible values if they are few, or else its default."""
    found: dict[str, set[str]] = {}
    for section, families in FAMILIES.items():
        if len(families) > 1:
            found[f"{section}.kind"] = {*families}
        for config in families.values():
            hints = field_types(config)
            for field in fields(config):
                hint, default = hints[field.name], default_of(field).replace(" ", "")
                known = {"false", "true"} if hint is bool else {default} - {""}
                if get_origin(hint) is Literal:
                    known = {*map(str, get_args(hint))}
                found.setdefault(f"{section}.{field.name}", set()).update(known)
    return found


Function = Callable[..., None]


START = "Start here"
"""The help panel of the first commands."""


def command(
    app: typer.Typer, example: str = "", panel: str = "", hidden: bool = False
) -> Callable[[Function], Function]:
    """Register a function as a command of the same name, by default in the help panel of its app.
    The help ends with an example.

    A parameter annotated with a dataclass becomes one option for each field of the dataclass. The
    text below a field is the help of its option.
    Errors of the user are reported in one line.
    """

    def register(function: Function) -> Function:
        hints = get_type_hints(function, include_extras=True)
        groups = {name: hint for name, hint in hints.items() if _is_group(hint)}
        first, takes_words = next(iter(hints)), [*hints][1:2] == ["assignments"]

        @wraps(function)
        def call(**values: object) -> None:
            with errors_reported():  # here, because Typer would end at Ctrl-C without a word
                if takes_words and isinstance(words := values["assignments"], list):
                    named = values.keys() - {first, "assignments"}
                    refuse_unknown_options([str(values[first]), *words], named)
                for name, group in groups.items():
                    given = {field.name: values.pop(field.name) for field in fields(group)}
                    values[name] = group(**given)
                function(**values)

        parameters = list(_parameters(function, hints))
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        vars(call)["__signature__"] = inspect.Signature(parameters)
        text = " ".join((function.__doc__ or "").split())
        app.command(
            help=text,
            short_help=f"{text.partition('. ')[0].rstrip('.')}.",
            epilog=f"Example: distvae {example}" if example else None,
            rich_help_panel=panel or app.rich_help_panel,
            hidden=hidden,
            context_settings={"ignore_unknown_options": takes_words},
        )(call)
        return function

    return register


def refuse_unknown_options(words: Sequence[str], known: Iterable[str]) -> None:
    """Refuse an option among settings: name the setting of this name, or else a known option."""
    for word, after in zip_longest(words, words[1:]):
        if not word.startswith("-"):
            continue
        option, _, value = word.partition("=")
        name = option.lstrip("-").replace("-", "_")
        keys = {key.partition(".")[2]: key for key in reversed(_values())} | dict.fromkeys(known)
        if near := get_close_matches(name.rpartition(".")[2], keys, 1, cutoff=0.7):
            key = keys[near[0]]
            if key is None:
                raise Refusal(
                    f"{option}: no such option; did you mean '--{near[0].replace('_', '-')}'?"
                )
            raise Refusal(
                f"{option}: no such option; a setting is given as {key}={value or after or ''}"
            )
        options = ", ".join(sorted(f"--{each.replace('_', '-')}" for each in known))
        raise Refusal(f"{option}: no such option; known: {options}")


def _parameters(function: Function, hints: dict[str, object]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a function, with the fields of each dataclass in its place."""
    kind = inspect.Parameter.KEYWORD_ONLY
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if not _is_group(hint):
            yield inspect.Parameter(name, kind, default=parameter.default, annotation=hint)
            continue
        types, meanings = get_type_hints(hint, include_extras=True), meanings_of(hint)
        for field in fields(hint):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            option = _option(field.name, types[field.name], default, meanings.get(field.name))
            yield inspect.Parameter(field.name, kind, default=default, annotation=option)


def _option(name: str, hint: object, default: object, meaning: str | None) -> object:
    """Return the annotation of an option, whose help is the text below the field. A switch that is
    off by default has no option to turn it off.
    """
    if get_origin(hint) is not Annotated:
        words = [f"--{name.replace('_', '-')}"] if default is False else []
        return Annotated[hint, typer.Option(*words, help=meaning)]
    if meaning is not None:
        get_args(hint)[1].help = meaning
    return hint


def _is_group(hint: object) -> TypeGuard[type["DataclassInstance"]]:
    return isinstance(hint, type) and is_dataclass(hint)


RUN_HELP = "Its folder, its name or id in MLflow, or best:METRIC@SWEEP."


def find_run(run: Path | str) -> Path:
    """Return the folder of a run. The run is named by its folder, by its name or id in MLflow, or
    as best:METRIC@SWEEP.
    """
    with refusing_bad_paths(str(run), "the name or the folder of a run expected"):
        folder = given_path(run, "run").expanduser()
    if folder.is_dir():  # MLflow is not asked
        return folder
    from distvae.track import Store
    from distvae.track.store import find_folder

    return find_folder(str(run), Store.find(RUNS))


def run_callback(context: typer.Context, run: Path | None) -> Path | None:
    """Return the folder of a run that the command line names.

    The run is not searched while the shell completes a later word.
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
"""The help panel of the options for workers, GPUs and machines."""
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
    """The workers that train one model together, and their Ray."""

    workers: Annotated[str, typer.Option(metavar="N|MIN:MAX", rich_help_panel=MACHINES)] = "0"
    """Number of processes that train together under Ray; a range such as 1:4 is elastic. 0: train
    in this process, without Ray.
    """
    gpus_per_worker: GPUsPerWorker = None
    address: Address = None
    wait: Wait = 0.0

    def group(self) -> "WorkerGroup | None":
        """Return the group of workers, or None if this process trains alone."""
        from distvae.machines.cluster import WorkerGroup

        if self.workers != "0":
            refuse_missing("--workers", "ray")
            return WorkerGroup.parse(self.workers, self.gpus_per_worker, self.address, self.wait)
        if self.gpus_per_worker:
            raise Refusal("--gpus-per-worker: there are no workers; --workers N expected")
        return None


@dataclass(frozen=True)
class TrialOptions:
    """The workers and GPUs of each trial of a sweep, and their Ray."""

    workers: Annotated[str, typer.Option(metavar="N|MIN:MAX", rich_help_panel=MACHINES)] = "0"
    """Number of processes that train each model together; a range such as 1:4 is elastic. 0: one
    process per model.
    """
    gpus_per_worker: GPUsPerWorker = None
    gpus_per_trial: Annotated[float | None, typer.Option(min=0, rich_help_panel=MACHINES)] = None
    """GPUs for each model without --workers; 0.25: four share one."""
    address: Address = None
    wait: Wait = 0.0

    def resources(self) -> "TrialResources":
        """Return the resources of each trial."""
        from distvae.tune.resources import TrialResources

        gpus = (self.gpus_per_worker, self.gpus_per_trial)
        return TrialResources.parse(self.workers, *gpus, self.address, self.wait)


def print_next(*words: object) -> None:
    """Print a command to continue with."""
    print(f"next: {shlex.join(map(str, words))}")


def progress_style(quiet: bool, json: bool) -> Style:
    """Return how a command reports its progress: not at all, as JSON for programs, or in lines."""
    if quiet:
        return "quiet"
    return "json" if json else "line"
