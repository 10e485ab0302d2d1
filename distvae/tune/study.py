"""A sweep: Optuna chooses the trials, Ray Tune runs them, each in a worker that keeps its process for the next one."""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distvae.cluster import cores, local_ray
from distvae.config import flatten
from distvae.output import claim_folder, whole
from distvae.refusal import Refusal
from distvae.track import Status, Store, Tracker
from distvae.tune.ledger import Ledger
from distvae.tune.results import Findings, rank, write_findings
from distvae.tune.running import asking, halting, listening, trainable
from distvae.tune.space import Space
from distvae.tune.trial import FAILURE, Trials
from distvae.tune.watch import Watch

SWEEP = "sweep.json"
"""The file of a sweep's folder that says what is explored."""
STATUS: dict[int, Status] = {0: "FINISHED", 1: "FAILED", 130: "KILLED"}
"""What MLflow calls the ends of a sweep."""
ENDS: dict[str, Status] = {"failed": "FAILED", "stopped": "KILLED", "halted": "KILLED"}
"""And those of trials that could not say so themselves."""


def sweep(
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
) -> Findings:
    """Run the trials of a space into the folder `out`; what is found is also written there."""
    pinned = {**(assignments or {}), **({"data.path": data} if data else {})}
    space = _with_data(settle(space, pinned, trials, concurrent), quiet)
    _open_folder(space, out, force, resume)
    ledger, record = Ledger(space, out), _record(space, out, root)
    record.begin()
    shared = Trials(space, out.absolute() / "trials", record.store)
    watch = Watch(space, quiet)
    try:
        with watch:
            watch.ended(ledger.results)
            _search(shared, ledger, watch)
        if ledger.hopeless:
            watch.gave_up()
    finally:
        findings = _conclude(shared, out, watch, record)
    return findings


def settle(space: Space, pinned: Mapping[str, Any], trials: int | None = None, concurrent: int | None = None) -> Space:
    """The space as it will be explored on this machine: what is pinned, how many side by side, PESQ or without."""
    side_by_side = concurrent or space.concurrent or cores()
    local = {"train.threads": max(1, cores() // side_by_side), "eval.processes": 1}
    space = space.pinned(local | dict(pinned))
    return _computable(replace(space, trials=trials or space.trials, concurrent=side_by_side))


def _computable(space: Space) -> Space:
    """Without the package pesq, extended STOI stands in for it."""
    from distvae.tasks.metrics import available

    missing = [name for name in space.metrics if name in space.base.eval.metrics and not available([name])]
    if not missing:
        return space
    print(f"{', '.join(missing)}: the package pesq is not installed; ranked by estoi instead", file=sys.stderr)
    metrics = {"estoi" if name in missing else name: direction for name, direction in space.metrics.items()}
    judged = [*dict.fromkeys([*available(space.base.eval.metrics), "estoi"])]
    return replace(space.pinned({"eval.metrics": judged}), metrics=metrics)


def _with_data(space: Space, quiet: bool) -> Space:
    """The space on data that is ready, for all trials; what every trial would refuse is refused at once."""
    from distvae.data import open_dataset
    from distvae.train.loop import device_of

    device_of(space.base.train.device)
    dataset = open_dataset(space.base.data, quiet=quiet)
    return space if "data.path" in space.varied else space.pinned({"data.path": dataset.origin})


def _open_folder(space: Space, out: Path, force: bool, resume: bool) -> None:
    """Make the sweep's folder, in the place of an earlier sweep if wanted, and write down what will be explored."""
    if resume and (out / SWEEP).is_file():
        _same_sweep(space, out)
    else:
        if force and (out / SWEEP).is_file():
            shutil.rmtree(out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise Refusal(
                f"{out}: exists; --resume goes on with a sweep, --force replaces it; or another name expected"
            )
        claim_folder(out, force)
    with whole(out / SWEEP) as path:
        path.write_text(json.dumps(_facts(space), indent=1) + "\n")


def _facts(space: Space) -> dict[str, Any]:
    """What a sweep's folder says is explored."""
    facts = {"name": space.name, "recipe": space.recipe, "config": flatten(space.base), "metrics": dict(space.metrics)}
    how = {name: getattr(space, name) for name in ("trials", "concurrent", "seed", "seeds", "search", "scheduler")}
    return facts | how | {"axes": [asdict(axis) for axis in space.axes]}


def _same_sweep(space: Space, out: Path) -> None:
    """Refuse to go on with a sweep of something else; there may be more trials, and other machines."""
    from distvae.train.session import FREE_TO_CHANGE

    then, now = (json.loads(text) for text in ((out / SWEEP).read_text(), json.dumps(_facts(space))))
    for facts in (then, now):
        facts |= {f"config.{key}": value for key, value in facts.pop("config").items() if key not in FREE_TO_CHANGE}
    for name in then.keys() | now.keys():
        if name not in ("trials", "concurrent") and then.get(name) != now.get(name):
            raise Refusal(
                f"{out}: a sweep with {name} {then.get(name)!r}, not {now.get(name)!r}; --resume goes on unchanged"
            )


def _record(space: Space, out: Path, root: Path) -> Tracker:
    from distvae.train.session import commit

    axes = {f"axis.{axis.name}": axis.span for axis in space.axes}
    metrics = {f"metric.{name}": direction for name, direction in space.metrics.items()}
    counts = {"trials": space.trials, "concurrent": space.concurrent, "seed": space.seed}
    tags = {"kind": "sweep", "recipe": space.recipe, "folder": str(out.absolute()), "commit": str(commit())}
    return Tracker(Store.find(root), space.name, out.name, out, counts | metrics | axes, tags)


def _search(shared: Trials, ledger: Ledger, watch: Watch) -> None:
    """Run all trials, one after the other or side by side, until all have ended or Ctrl-C was pressed."""
    space = shared.space
    slots, threads = space.concurrent or 1, space.base.train.threads or 1
    with local_ray(slots, threads) as resources, tempfile.TemporaryDirectory() as scratch:
        from ray import tune

        listener = listening(ledger, watch, shared)
        tune.Tuner(
            tune.with_resources(trainable(shared), resources),
            tune_config=tune.TuneConfig(
                num_samples=-1,
                max_concurrent_trials=slots,
                search_alg=asking(ledger),
                scheduler=halting(ledger),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=space.name,
                storage_path=scratch,
                verbose=0,
                callbacks=[listener],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trials are runs, which keep theirs
            ),
        ).fit()


def _conclude(shared: Trials, out: Path, watch: Watch, record: Tracker) -> Findings:
    """Close what could not say itself how it ended - trials that were stopped or whose process died - and rank."""
    for number, result in watch.results.items():
        if result.state == "training":
            result.state = "stopped"
        if result.state in ENDS and not (shared.at(number) / FAILURE).exists():
            for attempt in shared.runs(number, result.values):
                if attempt.folder.exists() and not attempt.ended:
                    attempt.tracker().close(ENDS[result.state])
    space = shared.space
    findings = Findings(out, space.metrics, rank(list(watch.results.values()), space.metrics), record.store.look)
    record.files([out / SWEEP, *write_findings(findings)], "results")
    if "finished" in findings.states:
        best = findings.results[0]
        record.register(space.name, shared.runs(best.number, best.values)[0].folder)
    record.close(STATUS[findings.exit_code])
    return findings
