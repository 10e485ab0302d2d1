"""How functions become commands, the options that several commands share, and their completion.

The shell starts the program at each press of Tab, so nothing heavy is imported.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
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

from distvae.cli.errors import errors_reported
from distvae.config.recipes import recipe_names
from distvae.config.schema import FAMILIES, default_of, field_types, meanings_of
from distvae.files.paths import given_path, refusing_bad_paths
from distvae.files.program import PACKAGE, SPACES, refuse_missing
from distvae.files.refusal import Refusal
from distvae.files.untrusted import Tree, read_json
from distvae.train.progress import Style

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from distvae.machines.cluster import WorkerGroup
    from distvae.tune.resources import TrialResources


RUNS = Path("runs")
"""The folder of runs and sweeps, and of MLflow's database."""
BREAKS = ("=", ":", "@")
"""Characters at which bash ends a word."""
LEFT = "_DISTVAE_LEFT"
"""The environment variable with the first part of the last word, which bash does not replace."""
PATH = "data.path"
"""The setting whose values are offered with its name alone. After the sign, bash itself completes
paths, and adds no space after a folder.
"""
TABLES = PACKAGE / "reproduce" / "tables"


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes, and the folders of runs here, that begin with the incomplete word."""
    return _beginning(incomplete, [*recipe_names(), *_runs()])


def complete_space(incomplete: str) -> list[str]:
    """Return the search spaces that begin with the incomplete word."""
    return _beginning(incomplete, [*_stems(Path(SPACES.name)), *_stems(SPACES)])


def complete_table(incomplete: str) -> list[str]:
    """Return the published tables that begin with the incomplete word."""
    return _beginning(incomplete, _stems(TABLES))


def complete_citable(incomplete: str) -> list[str]:
    """Return the models and recipes that begin with the incomplete word."""
    return _beginning(incomplete, [*FAMILIES["model"], *recipe_names()])


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings that begin with the incomplete word, each with the sign `=`.

    If a single setting is left, return its known values too, so that no shell adds a space.
    """
    name, sign, _ = _whole(incomplete).partition("=")
    values = _values()
    if not sign:
        named = [each for each in values if each.startswith(name)]
        if len(named) != 1:
            return _beginning(incomplete, (f"{each}=" for each in named))
        (name,) = named
        values[PATH] = {path.name for path in Path().iterdir()}
    words = (f"{name}={value}" for value in values.get(name, ()))
    return _beginning(incomplete, [*words, *([] if sign else [f"{name}="])])


def complete_key(incomplete: str) -> list[str]:
    """Return the sections and the settings that begin with the incomplete word."""
    return _beginning(incomplete, [*FAMILIES, *_values()])


def complete_run(incomplete: str) -> list[str]:
    """Return the folders of runs and sweeps here, and the best runs of sweeps, that begin with the
    incomplete word.
    """
    best = []
    for folder, metrics in _sweeps().items():
        best += [f"best:{metric}@{folder.name}" for metric in metrics]
    return _beginning(incomplete, [*_runs(), *map(str, _sweeps()), *best])


def complete_metric(incomplete: str) -> list[str]:
    """Return the metrics of sweeps and runs here that begin with the incomplete word."""
    ranked = (metric for metrics in _sweeps().values() for metric in metrics)
    scores = (name for file in RUNS.glob("*/evaluation/*/summary.json") for name in _read(file))
    return _beginning(incomplete, [*ranked, *scores])


def join_words() -> None:
    """Join the words that bash divides at the signs within them, if bash asks for a completion.

    Bash replaces only the end of the last word: the characters after the last = or :, or from the
    last @ on. The begin of the last word is left to bash.
    """
    if os.environ.get("_DISTVAE_COMPLETE") != "complete_bash":
        return
    words = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    joined = words[:1]
    for word in words[1:]:
        end = joined[-1]
        # Typer itself divides --option=value.
        is_option = len(joined) == 1 or end.startswith("-")
        if word and not is_option and (end[-1:] in BREAKS or word[0] in BREAKS):
            joined[-1] += word
        else:
            joined.append(word)
    *before, last = joined
    signs = {last.rfind("=") + 1, last.rfind(":") + 1, last.rfind("@")}
    left = max(signs) if last != words[-1] else 0
    os.environ |= {
        "COMP_WORDS": "\n".join([*before, last[left:]]),
        "COMP_CWORD": str(len(before)),
        LEFT: last[:left],
    }


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin with a word, without the part that the shell keeps."""
    found = {name for name in names if name.startswith(_whole(incomplete))}
    return sorted(name.removeprefix(_whole("")) for name in found)


def _whole(incomplete: str) -> str:
    return os.environ.get(LEFT, "") + incomplete


def _stems(folder: Path) -> Iterator[str]:
    return (path.stem for path in folder.glob("*.yaml"))


def _values() -> dict[str, set[str]]:
    """Return the settings, each with its possible values if they are few, or else its default."""
    found: dict[str, set[str]] = {}
    for section, families in FAMILIES.items():
        if len(families) > 1:
            found[f"{section}.kind"] = {*families}
        for config in families.values():
            hints = field_types(config)
            for field in fields(config):
                values = found.setdefault(f"{section}.{field.name}", set())
                values |= _choices(hints[field.name], field)
    return found


def _choices(hint: object, field: "Field[object]") -> set[str]:
    """Return the values of a type that has few, or else the default as one word of a shell."""
    if get_origin(hint) is Literal:
        return {*map(str, get_args(hint))}
    if hint is bool:
        return {"false", "true"}
    if get_origin(hint) is tuple and get_origin(element := get_args(hint)[0]) is Literal:
        return {f"[{each}]" for each in get_args(element)}
    default = default_of(field).replace(" ", "")
    return {default} if default else set()


def _runs() -> Iterator[str]:
    return (str(file.parent) for file in RUNS.glob("*/run.json"))


def _sweeps() -> dict[Path, list[str]]:
    """Return the metrics of each sweep here, by the folder of the sweep."""
    return {file.parent: list(_read(file).get("metrics", {})) for file in RUNS.glob("*/sweep.json")}


def _read(file: Path) -> Tree:
    """Return the mapping in a JSON file, or nothing if the file is invalid or being written."""
    with suppress(OSError, Refusal):
        return read_json(file)
    return {}


Function = Callable[..., None]


def command(app: typer.Typer) -> Callable[[Function], Function]:
    """Register a function as a command of the same name, in the help panel of its app.

    A parameter annotated with a dataclass becomes one option for each field of the dataclass. The
    text below a field is the help of its option.
    Errors of the user are reported in one line.
    """

    def register(function: Function) -> Function:
        hints = get_type_hints(function, include_extras=True)
        groups = {name: hint for name, hint in hints.items() if _is_group(hint)}

        @wraps(function)
        def call(**values: object) -> None:
            with errors_reported():  # here, because Typer would end at Ctrl-C without a word
                for name, group in groups.items():
                    given = {field.name: values.pop(field.name) for field in fields(group)}
                    values[name] = group(**given)
                function(**values)

        parameters = list(_parameters(function, hints))
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        vars(call)["__signature__"] = inspect.Signature(parameters)
        words = (function.__doc__ or "").split()
        app.command(help=" ".join(words), rich_help_panel=app.rich_help_panel)(call)
        return function

    return register


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


def progress_style(quiet: bool, json: bool) -> Style:
    """Return how a command reports its progress: not at all, as JSON for programs, or in lines."""
    if quiet:
        return "quiet"
    return "json" if json else "line"
