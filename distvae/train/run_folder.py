"""The run folder: its files, their owner, and the rules by which a run begins or resumes in it."""

import hashlib
import json
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NotRequired, TypedDict, Unpack, cast

from distvae.config import Config, flatten, from_stored, to_dict
from distvae.config.schema import Count, Widths, check_value
from distvae.data.dataset import Dataset
from distvae.files.paths import finished_name, partial_name
from distvae.files.program import provenance
from distvae.files.refusal import DISK_FAILED, Refusal, cause, shown
from distvae.files.storage import Folder, without_password
from distvae.files.untrusted import Plain, Tree, parse_json, parse_yaml, refuse_strange_entries
from distvae.numerics.metrics import counted
from distvae.train import checkpoint
from distvae.train.checkpoint import Place, delete_unreferenced, read_document, read_manifest

EPOCHS = "epochs.jsonl"
"""The file of a run folder with the record of each epoch, one record per line."""
EVENTS = "events.jsonl"
"""The file of a run folder with its events, one event per line."""
OWNER = "owner"
"""The file of a run folder with the token of the training that owns the folder."""
FACTS = {
    **{"recipe": str, "data": str, "data_digest": str, "unit": str},
    **{"rows": dict, "versions": dict},
}
"""The required facts of run.json, and their types."""
RUN_FILES = ("run.json", "config.yaml", OWNER, EPOCHS, *checkpoint.MANIFESTS)
"""The files of a run folder that training replaces, besides files of tensors."""
FREE_TO_CHANGE = {
    "data.path",
    "estep.mapped",
    "estep.sweeps",
    "eval.processes",
    "train.device",
    "train.threads",
    "train.products",
    "train.graphs",
    "train.tf32",
    "train.bits",
    "train.sinks",
}
"""Settings that may change when a run is resumed. They only say where and how to compute, and where
to report.

`agree_on_arithmetic` checks that the run still computes the same bits. The digest of the data
checks that the data are the same.
"""
COPIED_FILES = ("config.yaml", "epochs.jsonl", "events.jsonl")
COPIED_CHECKPOINTS = ("best", "last")


class Lineage(TypedDict):
    """The origin of a trial in population-based training."""

    parent: int
    """The number of the trial whose state this trial continues."""
    epoch: int
    """The number of epochs of the parent's state."""
    replaces: int
    """The number of the trial that this trial replaces."""


class RunInfo(TypedDict, total=False):
    """The facts about a run in its `run.json`."""

    version: int
    recipe: str
    dims: int
    shape: Sequence[int]
    unit: str
    data: str
    data_digest: str
    rows: Mapping[str, int]
    val_rows: int
    """The number of validation rows that are assessed after each epoch."""
    noise: float
    """The white noise in the rows, if training ends once sigma falls below it; otherwise 0."""
    recordings: Sequence[Plain]
    config_sha256: str
    config_sha256_before: str
    begun: str
    lineage: Lineage
    commit: str | None
    versions: Mapping[str, str]
    machine: Mapping[str, Plain]
    arithmetic: Mapping[str, Plain]
    arithmetic_before: Sequence[Mapping[str, Plain]]
    storage: str
    seconds: float
    epochs: int
    range: Sequence[float]


class Event(TypedDict):
    """A line of `events.jsonl`: training started or resumed."""

    epoch: int
    batch: int
    workers: int
    time: float
    rows: Sequence[float]
    """The number of rows whose populations each worker holds; 0 without populations."""
    bytes: Sequence[float]
    """The bytes of these populations."""
    machines: Sequence[str]
    """The machine of each worker."""
    copies: Sequence[str | None]
    """The machine that holds each worker's snapshots. With several machines, it is not the worker's
    machine.
    """
    leaving: NotRequired[int]
    moved: NotRequired[int]
    """One of both is non-zero in some events of version 0.2.0, which are not starts."""


def refuse_untrained(path: Path, which: str = "best") -> None:
    """Raise `Refusal` if a run folder has no weights."""
    if not Folder(path).has(f"{which}.json"):
        raise Refusal(
            f"{path}: no {which}.json in it: no epoch was finished, or the file was removed;"
            " --resume writes it"
        )


def size_of_rows(place: Path, info: RunInfo) -> tuple[int, tuple[int, ...]]:
    """Return the number of values of a row, and its shape if rows are images."""
    file = f"{place}/run.json"
    dims: int = check_value(f"{file}: dims", Count, info.get("dims"))
    shape: tuple[int, ...] = check_value(f"{file}: shape", Widths, info.get("shape", ()))
    if shape and math.prod(shape) != dims:
        raise Refusal(
            f"{file}: shape: {shown(list(shape))} has {shown(math.prod(shape))} values, and dims is"
            f" {shown(dims)}; altered or damaged"
        )
    return dims, shape


def read_info(place: Place) -> RunInfo:
    """Return the facts in run.json, or refuse a folder that is not a run folder."""
    folder = Folder.of(place)
    info = refuse_other_folder(folder)
    for name, kind in FACTS.items():
        if not isinstance(info.get(name), kind):
            raise Refusal(
                f"{folder}/run.json: altered or damaged: '{name}' is not as it was written"
            )
    return cast(RunInfo, info)


def refuse_other_folder(folder: Folder) -> Tree:
    """Refuse a folder that is not a run folder, or that links to files outside of it.

    Return the content of its run.json, without checking its facts.
    """
    if not folder.remote:
        refuse_strange_entries(Path(folder.path))
    if folder.has("sweep.json"):
        raise Refusal(
            f"{folder}: a sweep; one of the runs in its folder trials, or best:METRIC@SWEEP,"
            " expected"
        )
    if not folder.has("run.json"):
        raise Refusal(
            f"{folder}: not a run folder (no run.json in it); one that 'distvae train' made is"
            " expected"
        )
    return read_document(folder, "run.json")


def read_config(place: Place, info: RunInfo) -> Config:
    """Return the configuration of a run, or refuse a file that was altered."""
    folder = Folder.of(place)
    file = f"{folder}/config.yaml"
    if not folder.has("config.yaml"):
        raise Refusal(f"{file}: missing; a run folder keeps its configuration there")
    text = folder.read("config.yaml")
    # Another process may be replacing the file, so the previous digest is valid too.
    known = (
        info.get("config_sha256"),
        info.get("config_sha256_before"),
    )
    if hashlib.sha256(text).hexdigest() not in known:
        raise Refusal(
            f"{file}: altered since the run was started; begin a new run from it with 'distvae"
            f" train {file}'"
        )
    tree = parse_yaml(text, file)
    if not isinstance(tree, dict):
        raise Refusal(f"{file}: holds no mapping; the configuration that training wrote expected")
    return from_stored(tree)


def read_epochs(place: Place, first: int = 1) -> list[dict[str, float]]:
    """Return the records in epochs.jsonl from line `first` on, or [] without a file."""
    return read_records(place, EPOCHS, ("epoch", "val_objective", "val_bound"), first)


def best_epoch(place: Place, epochs: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the record of the epoch with the run's best weights.

    If this record is missing, as after a crash, return the record with the largest objective.
    """
    folder = Folder.of(place)
    if folder.has("best.json"):
        kept = read_manifest(folder, "best.json")["facts"]["epoch"]
        if found := [record for record in epochs if record["epoch"] == kept]:
            return found[-1]
    return max(epochs, key=lambda record: record["val_objective"])


def read_records(
    place: Place, name: str, fields: tuple[str, ...] = ("epoch",), first: int = 1
) -> list[Tree]:
    """Return the JSON objects of a file, one object per line, from line `first` on.

    Each object must have the fields. A line that a crash cut short is left out.
    """
    folder = Folder.of(place)
    lines = folder.read(name).splitlines(keepends=True) if folder.has(name) else []
    records = []
    for number, line in enumerate(lines[first - 1 :], first):
        if line.endswith(b"\n"):
            record = parse_json(line, f"{folder}/{name}: line {number}")
            for field in fields:
                if field not in record:
                    raise Refusal(
                        f"{folder}/{name}: altered or damaged in line {number}: no {field}"
                    )
            records.append(record)
    return records


def read_events(place: Place) -> list[Event]:
    """Return the events of a run, in order."""
    return cast(list[Event], read_records(place, EVENTS))


def starts_of(events: Sequence[Event]) -> list[Event]:
    """Return the events at which training started or resumed."""
    return [event for event in events if not event.get("leaving") and not event.get("moved")]


def describe_event(event: Event, start: int) -> str:
    """Describe a start, which is the start number `start` of a training."""
    workers = counted(event["workers"], "worker")
    if len({*event["machines"]}) > 1:
        workers += f" on {len({*event['machines']})} machines"
    epoch = f"from epoch {event['epoch']:.0f}"
    if event.get("batch"):
        epoch += f", batch {event['batch']:.0f}"
    return (
        f"{workers}, {epoch}"
        if start == 1
        else f"workers lost or changed; training continues with {workers} {epoch}"
    )


def open_folder(
    config: Config, dataset: Dataset, folder: Folder, recipe: str, resume: bool, force: bool
) -> bool:
    """Create the folder of a run, or check the existing one.

    Return whether the folder has a state to resume from.
    """
    check_run_folder(config, dataset, folder, recipe, resume, force)
    if resume and has_begun(folder):
        _delete_partials(folder)
        _update_epochs(config, folder)
        return has_saved_state(folder)
    if not _may_begin(folder, resume):
        delete_run(folder, force)
    _delete_partials(folder)
    _write_config(config, dataset, folder, recipe)
    return False


def has_begun(folder: Folder) -> bool:
    """Return whether a folder has a run to resume: `run.json`, and a file that is written later."""
    later = ("config.yaml", *checkpoint.MANIFESTS)
    return folder.has("run.json") and any(folder.has(name) for name in later)


def _may_begin(folder: Folder, resume: bool) -> bool:
    """Return whether a run can begin in a folder without deleting another run.

    The folder must be empty, or contain only the incomplete files of a training that was killed.
    """
    if folder.is_empty() or (resume and folder.has("run.json")):
        return True
    try:
        entries = folder.list_subfolders() or folder.list_files()
    except NotADirectoryError:
        return False
    return all(map(finished_name, entries))


def _delete_partials(folder: Folder) -> None:
    """Delete the incomplete files of earlier trainings that were killed."""
    for name in folder.list_files():
        finished = finished_name(name)
        if finished in RUN_FILES or finished.startswith(checkpoint.TENSOR_FILES):
            folder.delete(name)


def has_saved_state(folder: Folder) -> bool:
    """Return whether a folder has a run with a state to resume from."""
    return folder.has("run.json") and folder.has("last.json")


def check_run_folder(
    config: Config, dataset: Dataset, folder: Folder, recipe: str, resume: bool, force: bool
) -> None:
    """Raise `Refusal` if the run can neither start nor resume in a folder. Change nothing."""
    if resume and has_begun(folder):
        _check_same_run(config, dataset, folder, recipe)
    elif not _may_begin(folder, resume):
        _check_replaceable(folder, force)


def _check_replaceable(folder: Folder, force: bool) -> None:
    """Raise `Refusal` unless a folder has a run that may be replaced."""
    if not force:
        raise Refusal(
            f"{folder}: exists; --resume continues it, --force replaces it and deletes all files in"
            " it; or name another folder"
        )
    refuse_other_folder(folder)
    refuse_others_inside(folder)


def refuse_others_inside(folder: Folder, own: tuple[str, ...] = ()) -> None:
    """Refuse to delete a folder with other runs or sweeps in its subfolders, except below `own`."""
    for path in folder.find("run.json", "sweep.json"):
        if not path.startswith(own):
            other = folder.subfolder(path.rpartition("/")[0])
            raise Refusal(
                f"{other}: another run or sweep, which would be lost with {folder}; another folder"
                " expected"
            )


def delete_run(place: Place, force: bool) -> None:
    """Delete an earlier run if `force` is true. Refuse to delete anything else.

    This process takes ownership first, so that a training still running in the folder ends.
    """
    folder = Folder.of(place)
    _check_replaceable(folder, force)
    take_ownership(folder)
    remove_run(folder)


def remove_run(folder: Folder) -> None:
    """Delete a run and its folder.

    The checkpoints are deleted first and `run.json` last, so that a deletion that is cut short can
    be repeated.
    """
    try:
        for name in checkpoint.MANIFESTS:
            folder.delete(name)
        for name in folder.list_subfolders():
            folder.subfolder(name).remove()
        for name in folder.list_files():
            if name != "run.json":
                folder.delete(name)
        folder.remove()
    except OSError as error:
        if error.errno in DISK_FAILED:
            raise
        raise Refusal(
            f"{folder}: written to while it was to be replaced; its removal by hand, or another"
            " folder, expected"
        ) from error


class TakenOver(Refusal):
    """Another training has taken ownership of this training's folder."""


def take_ownership(folder: Folder) -> str:
    """Make this process the owner of a run folder, and return the owner's token."""
    token = secrets.token_hex(8)
    folder.write(OWNER, token.encode())
    return token


def is_owner(folder: Folder, owner: str) -> bool:
    """Return whether a token still owns the folder; False if the folder was deleted."""
    try:
        return folder.read(OWNER).decode() == owner
    except FileNotFoundError:
        return False


def check_ownership(folder: Folder, owner: str) -> None:
    """Raise `TakenOver` if another training owns the folder.

    The error ends, for example, a worker that has outlived its driver.
    """
    if not is_owner(folder, owner):
        raise TakenOver(
            f"{folder}: another process trains this run, or the run was deleted; this process ends"
        )


def _check_same_run(config: Config, dataset: Dataset, folder: Folder, recipe: str) -> None:
    """Raise `Refusal` to resume a run of another recipe, other settings, or other data."""
    info = read_info(folder)
    if recipe and info["recipe"] != recipe:
        raise Refusal(
            f"{folder}: holds a run of '{info['recipe']}', not of '{recipe}'; another folder"
            " expected"
        )
    before, now = flatten(read_config(folder, info)), flatten(config)
    free = set(FREE_TO_CHANGE)
    if config.train.schedule != "cosine":
        free.add("train.epochs")
    for name in now.keys() | before.keys():
        old, new = before.get(name), now.get(name)
        if old == new or name in free:
            continue
        reason = ", on which its cosine schedule depends" if name == "train.epochs" else ""
        # words and numbers can be copied from the hint to the command line
        is_plain = old.isidentifier() if isinstance(old, str) else isinstance(old, int | float)
        hint = f": {name}={old if isinstance(old, str) else json.dumps(old)}" if is_plain else ""
        raise Refusal(
            f"{name}: {new!r}, but the run in {folder} has {old!r}{reason}; --resume needs the same"
            f" value{hint}"
        )
    trained = max((epoch["epoch"] for epoch in read_epochs(folder)), default=0)
    if config.train.epochs < trained:
        raise Refusal(
            f"train.epochs: {config.train.epochs}, but the run in {folder} has {trained:.0f}"
            f" already; {trained:.0f} or more expected"
        )
    if info["data_digest"] != dataset.digest:
        raise Refusal(
            f"{folder}: trained on other data ({info['data']}); --resume needs the data it was"
            " started on"
        )


def _update_epochs(config: Config, folder: Folder) -> None:
    """Store a changed number of epochs, so that a run continues for more or fewer epochs."""
    info = read_info(folder)
    stored = read_config(folder, info)
    if config.train.epochs == stored.train.epochs:
        return
    text = config_yaml(stored.with_("train", epochs=config.train.epochs))
    update_info(
        folder,
        config_sha256=hashlib.sha256(text).hexdigest(),
        config_sha256_before=info["config_sha256"],
    )
    folder.write("config.yaml", text)


def config_yaml(config: Config) -> bytes:
    """Return the content of config.yaml for a configuration."""
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False).encode()


def _write_config(config: Config, dataset: Dataset, folder: Folder, recipe: str) -> None:
    """Write run.json first, which marks the folder as a run, and then config.yaml."""
    text = config_yaml(config)
    program = provenance()
    info: RunInfo = {
        "version": checkpoint.VERSION,
        "recipe": recipe,
        "dims": dataset.dims,
        "shape": dataset.shape,
        "unit": dataset.unit,
        "data": dataset.name,
        "data_digest": dataset.digest,
        "rows": {split: len(rows) for split, rows in dataset.splits.items()},
        "recordings": [asdict(recording) for recording in dataset.recordings],
        "config_sha256": hashlib.sha256(text).hexdigest(),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": program["commit"],
        "versions": program["versions"],
        "machine": program["machine"],
    }
    folder.write("run.json", json.dumps(info, indent=1).encode())
    folder.write("config.yaml", text)


def drop_later_epochs(folder: Folder, finished: int) -> None:
    """Delete the records of epochs after `finished`, because these epochs are trained again."""
    lines = [
        json.dumps(record) + "\n" for record in read_epochs(folder) if record["epoch"] <= finished
    ]
    folder.write("epochs.jsonl", "".join(lines).encode())


def update_info(folder: Folder, **changes: Unpack[RunInfo]) -> None:
    """Add or change facts in `run.json`."""
    info: RunInfo = {**read_info(folder), **changes}
    folder.write("run.json", json.dumps(info, indent=1).encode())


def state_folder(local: Path, storage: str | None, resume: bool, force: bool) -> Folder:
    """Return the folder of a run's state: the local folder, or a subfolder of the storage.

    A storage that only `run.json` names is refused, because the file may come from a stranger.
    """
    if storage is None:
        if resume and (local / "run.json").is_file() and (kept := read_info(local).get("storage")):
            above = str(kept).partition("?")[0].rstrip("/").rpartition("/")[0]
            raise Refusal(f"{local}: its state is in {kept}; --resume --storage {above} expected")
        return Folder(local)
    folder = Folder(storage).subfolder(local.name)
    check_storage("--storage", folder)
    if not resume and not Folder(local).is_empty():
        delete_run(local, force)
    local.mkdir(parents=True, exist_ok=True)
    return folder


def check_storage(option: str, folder: Folder) -> None:
    """Refuse a place that does not keep a file, before anything is computed."""
    checked, name, content = folder.with_short_timeout(), partial_name("look"), b"a look"
    try:
        checked.write(name, content)
        returned = checked.read(name)
        checked.delete(name)
    except OSError as error:
        raise Refusal(
            f"{option}: {folder}: {cause(error)}; a place that can be written expected"
        ) from error
    if returned != content:
        raise Refusal(f"{option}: {folder}: returns other bytes than were written")


def update_local_copy(folder: Folder, local_path: Path) -> None:
    """Copy the results of a run to the local folder, and delete the weights of earlier copies.

    Do nothing if the run's state is in the local folder.
    """
    local = Folder(local_path)
    if folder.place == local.place or not folder.has("run.json"):
        return
    for name in COPIED_FILES:
        if folder.has(name):
            local.write(name, folder.read(name))
    for name in COPIED_CHECKPOINTS:
        if folder.has(f"{name}.json"):
            tensors = read_manifest(folder, f"{name}.json")["tensors"]
            local.write(tensors, folder.read(tensors))
            local.write(f"{name}.json", folder.read(f"{name}.json"))
    delete_unreferenced(local)
    info: RunInfo = {**read_info(folder), "storage": without_password(folder.place)}
    local.write("run.json", json.dumps(info, indent=1).encode())
