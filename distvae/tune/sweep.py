"""A sweep: Optuna chooses the trials, Ray Tune runs them, each in a worker that keeps its process
for the next one.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distvae.config import flatten, from_stored
from distvae.config.recipes import override, refuse_place
from distvae.files.output import atomic_file, check_writable_folder
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import read_json
from distvae.machines.cluster_check import check_cluster
from distvae.machines.driver import object_store_bytes, with_absolute_paths
from distvae.machines.ray_session import available_cores, ray_session
from distvae.machines.stop_files import STOP_FILE
from distvae.track import Relay, Status, Store, Tracker
from distvae.train.progress import stop_signals
from distvae.tune.display import SweepDisplay
from distvae.tune.folder import alone, clear, occupied
from distvae.tune.optuna_study import OptunaStudy
from distvae.tune.ray_tune import LIVES, asking, halting, listening, trainable
from distvae.tune.resources import MachineResources, TrialResources, wait_for_capacity
from distvae.tune.results import Findings, rank, write_findings
from distvae.tune.space import Space
from distvae.tune.sweep_file import (
    SWEEP_FILE,
    describe_arithmetic,
    recorded_settings,
    refuse_other_bits,
)
from distvae.tune.trial import FAILURE, Trials

NOTES = "tune"
"""The folder of a sweep's folder that Tune writes into while it lasts."""
STATUS: dict[int, Status] = {0: "FINISHED", 1: "FAILED"}
"""What MLflow calls the ends of a sweep that nobody stopped."""
ENDS: dict[str, Status] = {"failed": "FAILED", "stopped": "KILLED", "halted": "KILLED"}
"""And those of trials that could not say so themselves."""
DEFAULT_RESOURCES = TrialResources()
"""Trials that train in their own processes, on this machine."""


def run_sweep(
    space: Space,
    out: Path,
    assignments: Mapping[str, Any] | None = None,
    trials: int | None = None,
    concurrent: int | None = None,
    data: str = "",
    quiet: bool = False,
    force: bool = False,
    resume: bool = False,
    root: Path = Path("runs"),
    resources: TrialResources = DEFAULT_RESOURCES,
) -> Findings:
    """Run the trials of a space into the folder `out`; what is found is also written there."""
    pinned = {**(assignments or {}), **({"data.path": data} if data else {})}
    check_writable_folder(out)
    refuse_place(space.base, pinned.get("data.path"))
    pinned = (recorded_settings(out) if resume else {}) | pinned
    space = _with_data(
        prepare_space(space, pinned, trials, concurrent, resources), quiet, resources
    )
    _refuse_folder(space, out, force, resume, resources)
    watch, store = SweepDisplay(space, quiet), Store.find(root)
    watch.waits(resources.address)
    with stop_signals() as stop, alone(out), _ray(space, resources, stop) as ray:
        device = space.base.train.device
        there = wait_for_capacity(ray, resources, _threads(space), stop, _slots(space), device)
        resources = resources.settled(there, device)
        watch.space = space = limit_concurrency(space, resources, there, concurrent)
        check_cluster(ray, Folder(out), "--out with a path on a shared disk")
        prepare_folder(space, out, resume, resources)
        study, record = OptunaStudy(space, out), _record(space, out, store)
        record.create()
        shared = Trials(space, out.absolute() / "trials", resources.group)
        try:
            with Relay(store, shared.folder) as relay:
                listener = listening(study, watch, relay, shared, stop)
                process = resources.process(there, _threads(space), _slots(space))
                try:
                    with watch:
                        watch.ended(study.results)
                        _search(shared, process, asking(study, stop), halting(study), listener)
                finally:
                    _close(shared, watch)
            if study.all_failed:
                watch.gave_up()
        finally:
            findings = _conclude(shared, out, watch, record, stop())
    return findings


def prepare_space(
    space: Space,
    pinned: Mapping[str, Any],
    trials: int | None = None,
    concurrent: int | None = None,
    resources: TrialResources = DEFAULT_RESOURCES,
) -> Space:
    """The space as it will be explored: what is pinned, PESQ or without.

    A trial that is a process of this machine has an equal part of its cores, a worker or a process
    elsewhere has one. All trials multiply matrices by the same library, wherever they run.
    """
    from distvae.numerics.arithmetic import choose_library

    here = resources.address is None and resources.group is None
    slots = concurrent or space.concurrent or (available_cores() if here else None)
    threads = max(1, available_cores() // slots) if here and slots else 1
    alike = {
        "train.threads": threads,
        "train.products": choose_library(space.base.train.products),
        "eval.processes": 1,
    }
    space = space.pinned(alike | dict(pinned))
    return _computable(replace(space, trials=trials or space.trials, concurrent=slots))


def limit_concurrency(
    space: Space, resources: TrialResources, there: MachineResources, concurrent: int | None
) -> Space:
    """The space with as many trials side by side as it wants, or fewer that fit; more are refused
    if asked for.
    """
    room = resources.room(there, _threads(space))
    if concurrent and concurrent > room:
        raise Refusal(
            f"--concurrent: {resources.lack(there, _threads(space), concurrent)}; at most {room}"
            " expected"
        )
    return replace(space, concurrent=min(space.concurrent or room, room))


def _threads(space: Space) -> int:
    return space.base.train.threads or 1


def _slots(space: Space) -> int:
    return space.concurrent or 1


def _ray(
    space: Space, resources: TrialResources, stop: Callable[[], object]
) -> AbstractContextManager[Any]:
    """The Ray of an address, or one here with room for all trials side by side that need no
    workers.
    """
    cpus = available_cores() if resources.group else _slots(space) * _threads(space)
    return ray_session(
        resources.address, cpus, object_store_bytes(cpus if resources.group else 0), stop
    )


def _computable(space: Space) -> Space:
    """Without the package pesq, extended STOI stands in for it."""
    from distvae.tasks.metrics import available

    missing = [
        name for name in space.metrics if name in space.base.eval.metrics and not available([name])
    ]
    if not missing:
        return space
    print(
        f"{', '.join(missing)}: the package pesq is not installed; ranked by estoi instead",
        file=sys.stderr,
    )
    metrics = {
        "estoi" if name in missing else name: direction for name, direction in space.metrics.items()
    }
    judged = [*dict.fromkeys([*available(space.base.eval.metrics), "estoi"])]
    return replace(space.pinned({"eval.metrics": judged}), metrics=metrics)


def _with_data(space: Space, quiet: bool, resources: TrialResources) -> Space:
    """The space on data that is ready, for all trials; what every trial would refuse is refused at
    once.
    """
    from distvae.data import open_dataset
    from distvae.train.cost import DataSize
    from distvae.train.devices import select_device
    from distvae.tune.validation import afford

    resources.refuse_hidden(space.base.train.device)
    if resources.address is None:
        select_device(space.base.train.device)
    dataset = open_dataset(space.base.data, quiet=quiet)
    if resources.address is None and not any(key.startswith("data.") for key in space.varied):
        afford(space, DataSize.of(dataset), resources.workers, resources.group is None)
    if "data.path" in space.varied:
        return space
    return space.pinned(
        {"data.path": with_absolute_paths(space.config({"data.path": dataset.origin})).data.path}
    )


def _refuse_folder(
    space: Space, out: Path, force: bool, resume: bool, resources: TrialResources
) -> None:
    """Refuse a folder of something else, or of an earlier sweep that is neither to go on nor to be
    replaced.
    """
    if resume and (out / SWEEP_FILE).is_file():
        refuse_other_sweep(space, out)
        refuse_other_bits(space, out, resources)
    elif force and (out / SWEEP_FILE).is_file():
        return
    elif out.exists() and (not out.is_dir() or occupied(out)):
        raise Refusal(
            f"{out}: exists; --resume goes on with a sweep, --force replaces it; or another name"
            " expected"
        )


def prepare_folder(space: Space, out: Path, resume: bool, resources: TrialResources) -> None:
    """Write down what will be explored, in a folder that is free, the sweep's own, or that of one
    to be replaced.
    """
    if not resume and (out / SWEEP_FILE).is_file():
        clear(out)
    shutil.rmtree(out / NOTES, ignore_errors=True)
    with atomic_file(out / SWEEP_FILE) as path:
        path.write_text(
            json.dumps(describe_sweep(space) | describe_arithmetic(space, resources), indent=1)
            + "\n"
        )


def describe_sweep(space: Space) -> dict[str, Any]:
    """What a sweep's folder says is explored."""
    facts = {
        "name": space.name,
        "recipe": space.recipe,
        "config": flatten(space.base),
        "metrics": dict(space.metrics),
    }
    how = {
        name: getattr(space, name)
        for name in ("trials", "concurrent", "seed", "seeds", "search", "scheduler")
    }
    facts |= how | {"axes": [asdict(axis) for axis in space.axes]}
    rows = {
        name: flatten(row.config) | {"published": dict(row.published)}
        for name, row in space.rows.items()
    }
    return facts | ({"rows": rows, "split": space.split, "command": space.command} if rows else {})


def refuse_other_sweep(space: Space, out: Path) -> None:
    """Refuse to go on with a sweep of something else; there may be more trials or rows, and other
    machines.
    """
    before, after = read_json(out / SWEEP_FILE), json.loads(json.dumps(describe_sweep(space)))
    before.pop("arithmetic", None)
    rows = before.get("rows", {})
    for name in rows:
        if name not in after.get("rows", {}):
            raise Refusal(
                f"{out}: has a row {name}, which is not asked for or lacks its data; --resume wants"
                " it too"
            )
    then, now = _binding(before, rows), _binding(after, rows)
    for name in ("command", *then, *now):
        if name not in ("trials", "concurrent") and then.get(name) != now.get(name):
            raise Refusal(
                f"{out}: a sweep with {name} {then.get(name)!r}, not {now.get(name)!r}; --resume"
                " goes on unchanged"
            )


def _binding(facts: Mapping[str, Any], rows: Iterable[str]) -> dict[str, Any]:
    """What a sweep that goes on must have in common with its beginning, of some rows, a name for
    each.
    """
    from distvae.train.run_folder import FREE_TO_CHANGE

    configs = {f"row {name}": facts["rows"][name] for name in rows} or {"config": facts["config"]}
    told = {
        f"{name}.{key}": value
        for name, config in configs.items()
        for key, value in _settings(config).items()
        if key not in FREE_TO_CHANGE
    }
    return {name: value for name, value in facts.items() if name not in ("config", "rows")} | told


def _settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stored configuration, with those that are younger than it, and what
    it says besides.
    """
    beside = {key: value for key, value in stored.items() if "." not in key}
    config = from_stored(
        override({}, {key: value for key, value in stored.items() if key not in beside})
    )
    return flatten(config) | beside


def _record(space: Space, out: Path, store: Store) -> Tracker:
    from distvae.files.provenance import commit

    axes = {f"axis.{axis.name}": axis.span for axis in space.axes}
    metrics = {f"metric.{name}": direction for name, direction in space.metrics.items()}
    counts = {"trials": space.trials, "concurrent": space.concurrent, "seed": space.seed}
    tags = {
        "kind": "sweep",
        "recipe": space.recipe,
        "folder": str(out.absolute()),
        "commit": str(commit()),
    }
    return Tracker(store, space.name, out.name, out, counts | metrics | axes, tags)


def _search(
    shared: Trials, process: dict[str, float], searcher: Any, scheduler: Any, listener: Any
) -> None:
    """Run all trials, one after the other or side by side, until all have ended or were asked to
    stop.
    """
    from ray import tune

    notes = shared.folder.parent / NOTES
    try:
        tune.Tuner(
            tune.with_resources(trainable(shared), process),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                max_concurrent_trials=shared.space.concurrent,
                search_alg=searcher,
                scheduler=scheduler,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=shared.space.name,
                storage_path=str(notes),
                verbose=0,
                callbacks=[listener],
                failure_config=tune.FailureConfig(max_failures=LIVES - 1),
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_at_end=False
                ),  # trials are runs, which keep theirs
            ),
        ).fit()
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def _close(shared: Trials, watch: SweepDisplay) -> None:
    """Say how trials ended that could not say so themselves: they were stopped, or their process
    died.
    """
    (shared.folder / STOP_FILE.format(shared.owner)).unlink(missing_ok=True)
    for number, result in watch.results.items():
        if result.state == "training":
            result.state = "stopped"
        if result.state in ENDS and not (shared.at(number) / FAILURE).exists():
            for attempt in shared.runs(number, result.values):
                if attempt.folder.exists() and not attempt.ended:
                    attempt.tracker().close(ENDS[result.state])


def _conclude(
    shared: Trials, out: Path, watch: SweepDisplay, record: Tracker, signal: int
) -> Findings:
    """Rank, and tell of it."""
    space, ranked = shared.space, rank(list(watch.results.values()), shared.space.metrics)
    findings = Findings(out, space.metrics, ranked, record.viewer, signal)
    record.files([out / SWEEP_FILE, *write_findings(findings)], "results")
    if "finished" in findings.states and not space.rows:
        best = ranked[0]
        record.register(space.name, shared.runs(best.number, best.values)[0].folder)
    record.close(STATUS.get(findings.exit_code, "KILLED"))
    return findings
