"""The folder of a sweep: locked while a sweep runs in it, and never replaced by accident.

`sweep.json` records what the sweep explores and how it computes. A resumed sweep must explore the
same space on the same data, and this machine must compute the same bits as before.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config import flatten, from_stored
from distvae.config.recipes import override
from distvae.files.paths import atomic_file, finished_name, prepare_folder
from distvae.files.refusal import Refusal, shown
from distvae.files.storage import Folder
from distvae.files.untrusted import Plain, Tree, read_json, refuse_strange_entries
from distvae.train.run_folder import FREE_TO_CHANGE, refuse_others_inside
from distvae.tune.mirror import Mirror
from distvae.tune.resources import TrialResources
from distvae.tune.space import Space, as_written, in_yaml
from distvae.tune.study import read_trials
from distvae.tune.trial import Trials

if TYPE_CHECKING:
    import torch

    from distvae.config import DataConfig
    from distvae.data.dataset import Dataset

SWEEP_FILE = "sweep.json"
LOCK = ".sweep.lock"
"""The file that is locked while a sweep runs."""
NOTES = ".tune"
"""The subfolder that Ray Tune writes into while a sweep runs."""
KEPT = "tune"
"""The subfolder of the experiments of Ray Tune that are kept."""
DECIDED_BY_MACHINE = ("train.threads", "train.products")
"""Settings that the machine decides when a sweep begins; a resume keeps them."""
MAY_GROW = ("trials", "concurrent")
"""Facts that may differ in a resume; a population keeps its trials."""
NOT_COMPARED = ("name", "about", "arithmetic", "axes", "config", "rows", "baselines", "storage")
"""Facts that a resume may change, or that are compared by parts or elsewhere."""
DIGITS = 12
"""Characters of a digest that a message shows."""


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Hold the lock of a sweep's folder, and refuse a folder in which another sweep runs.

    A folder that was created here and stayed empty is deleted at the end.
    """
    from filelock import FileLock, Timeout

    created = not out.exists()
    refuse_strange_entries(out)
    prepare_folder(out, force=True)
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise Refusal(
            f"{out}: another sweep is running in it; wait for its end, or name another folder"
        ) from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        if created and not has_content(out):
            shutil.rmtree(out, ignore_errors=True)
        lock.release()


def has_content(out: Path) -> bool:
    """Return whether a folder contains more than the lock and files of unfinished writes."""
    if not out.is_dir():
        return False
    return any(path.name != LOCK and not finished_name(path.name) for path in out.iterdir())


def refuse_folder(
    space: Space, out: Path, force: bool, resume: bool, resources: TrialResources
) -> None:
    """Refuse a folder without a sweep, or whose sweep is neither to be resumed nor replaced.

    A sweep to be resumed must explore the same space and compute with the same arithmetic.
    """
    from distvae.train.session import check_same_arithmetic

    is_sweep = (out / SWEEP_FILE).is_file()
    if is_sweep and resume:
        refuse_other_sweep(space, out)
        recorded = read_json(out / SWEEP_FILE).get("arithmetic")
        if recorded and not resources.address and space.base.train.bits == "same":
            check_same_arithmetic(space.base.train, recorded, str(out), _device(space, resources))
    elif is_sweep and force:
        refuse_others_inside(Folder(out), own=("trials/", f"{KEPT}/", f"{NOTES}/"))
    elif is_sweep:
        raise Refusal(
            f"{out}: exists; --resume continues a sweep, --force replaces it and deletes all files"
            " in it; or name another folder"
        )
    elif has_content(out) or (out.exists() and not out.is_dir()):
        raise Refusal(f"{out}: exists and holds no sweep; another name expected")


def prepare_sweep_folder(
    space: Space, out: Path, resume: bool, resources: TrialResources, mirror: Mirror | None = None
) -> None:
    """Write sweep.json, after deleting an earlier sweep that is not resumed."""
    from distvae.train.session import agree_on_arithmetic

    if not resume and (out / SWEEP_FILE).is_file():
        clear_folder(out)
    shutil.rmtree(out / NOTES, ignore_errors=True)
    facts = describe_sweep(space)
    if mirror:
        facts["storage"] = str(mirror.there)
    if not resources.address:  # trials elsewhere record their own arithmetic
        arithmetic = agree_on_arithmetic(space.base.train, _device(space, resources))
        facts["arithmetic"] = arithmetic.facts()
    with atomic_file(out / SWEEP_FILE) as path:
        path.write_text(json.dumps(facts, indent=1) + "\n")


def clear_folder(out: Path) -> None:
    """Delete everything in a folder except the lock.

    The file by which the folder is known as a sweep's goes last, so that a deletion that is cut
    short can be repeated.
    """
    for path in sorted(out.iterdir(), key=lambda path: path.name == SWEEP_FILE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _device(space: Space, resources: TrialResources) -> "torch.device":
    """Return the device of trials that all train on this machine."""
    from distvae.train.team import select_device

    gpus = resources.group.gpus if resources.group else resources.gpus
    return select_device(space.base.train.device, () if gpus == 0 else None)


def new_experiment(out: Path, space: Space, kept: bool) -> Path:
    """Return the folder for Ray Tune to write into. Each kept part of a sweep has its own."""
    if not kept:
        return out / NOTES / space.name
    number = 1
    while (folder := out / KEPT / f"{space.name}-{number}").exists():
        number += 1
    return folder


def recorded_facts(out: Path) -> Tree:
    """Return what a sweep in a folder explores, or {} if the folder has no sweep."""
    return read_json(out / SWEEP_FILE) if (out / SWEEP_FILE).is_file() else {}


def describe_sweep(space: Space) -> Tree:
    """Return what a sweep explores, as its file records it."""
    facts: Tree = {
        "name": space.name,
        "about": space.about,
        "recipe": space.recipe,
        "config": flatten(space.base),
        "metrics": dict(space.metrics),
        "trials": space.trials,
        "concurrent": space.concurrent,
        "seed": space.seed,
        "seeds": space.seeds,
        "search": space.search,
        "scheduler": space.scheduler,
        "axes": [asdict(axis) for axis in space.axes],
    }
    if space.judge:
        facts["judge"] = asdict(space.judge)
    if space.baselines is not None:
        facts["baselines"] = space.baselines
    if space.rows:
        rows: Tree = {}
        for name, row in space.rows.items():
            rows[name] = flatten(row.config) | {"published": dict(row.published)}
        facts |= {"rows": rows, "split": space.split, "command": space.command}
    return facts


def refuse_other_sweep(space: Space, out: Path) -> None:
    """Refuse to resume a sweep that explores something else.

    There may be more trials or rows than before, other machines, and another name of the space.
    """
    before = read_json(out / SWEEP_FILE)
    after = json.loads(json.dumps(describe_sweep(space)))
    rows = before.get("rows", {})
    for name in rows:
        if name not in after.get("rows", {}):
            raise Refusal(
                f"{out}: has a row {name}, which is not asked for or lacks its data; --resume needs"
                " it too"
            )
    then, now = _facts_to_keep(before, rows), _facts_to_keep(after, rows)
    may_grow = ("concurrent",) if space.scheduler == "population" else MAY_GROW
    names = dict.fromkeys(["command", *then, *now])
    for name in sorted(names, key=lambda name: name == "order of axes"):
        if name not in may_grow and then.get(name) != now.get(name):
            raise Refusal(
                f"{out}: a sweep with {name} {_in_words(then.get(name))}, not"
                f" {_in_words(now.get(name))}; --resume needs the same, or another -o for another"
                " sweep"
            )


def _in_words(value: Plain) -> str:
    """Return a fact as a message shows it, a list or a mapping as a space file writes it."""
    if value is None:
        return "none"
    return in_yaml(value) if isinstance(value, list | dict) else shown(value)


def _facts_to_keep(facts: Tree, rows: Iterable[str]) -> Tree:
    """Return the facts that a resumed sweep must share with its beginning.

    The settings of the base, or of the rows given, are named one by one. Settings that did not
    exist when they were stored have the values that were meant then.
    """
    kept: Tree = {}
    for axis in facts["axes"]:
        count = sum(name.partition("#")[0] == f"axis {axis['key']}" for name in kept)
        kept[f"axis {axis['key']}#{count + 1}" if count else f"axis {axis['key']}"] = as_written(
            axis
        )
    kept["order of axes"] = [axis["key"] for axis in facts["axes"]]
    kept |= {name: value for name, value in facts.items() if name not in NOT_COMPARED}
    configs = {f"row {name}": facts["rows"][name] for name in rows} or {"config": facts["config"]}
    for name, stored in configs.items():
        settings = {key: value for key, value in stored.items() if "." in key}
        others = {key: value for key, value in stored.items() if "." not in key}
        complete = flatten(from_stored(override({}, settings))) | others
        for key, value in complete.items():
            if key not in FREE_TO_CHANGE:
                kept[f"{name}.{key}"] = value
    return kept


def refuse_other_data(space: Space, out: Path, base: "Dataset") -> None:
    """Refuse to resume a sweep whose trials have trained on other data than the next would.

    The data of the space's base is open already. The data of rows and of axes is opened once for
    each path, with the settings of the first trial that trained on it.
    """
    from distvae.data import open_dataset
    from distvae.train.run_folder import read_info

    opened: dict[str, tuple[DataConfig, Dataset]] = {}
    trials = Trials(space, out / "trials")
    for trial in read_trials(out):
        for run in trials.runs(trial.number + 1, trial.user_attrs.get("values", {})):
            if not run.begun:
                continue
            config = space.config(run.values).data
            if config.path not in opened:
                is_base = config == space.base.data
                opened[config.path] = config, base if is_base else open_dataset(config, quiet=True)
            settings, dataset = opened[config.path]
            info = read_info(run.folder)
            then, now = info["data_digest"], dataset.digest
            if config == settings and then != now:
                raise Refusal(
                    f"{out}: trial {run.name} trained on {info['data']} (digest {then[:DIGITS]}),"
                    f" and the data now is {dataset.name} (digest {now[:DIGITS]}); --data as before"
                    " expected, or another -o for another sweep"
                )
