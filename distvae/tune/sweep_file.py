"""The file `sweep.json`: what a sweep explores and how it computes, to be the same on resume."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from distvae.config import flatten, from_stored
from distvae.config.recipes import override
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal, shown
from distvae.files.untrusted import read_json
from distvae.tune.axis_facts import describe_changes, in_yaml
from distvae.tune.resources import TrialResources
from distvae.tune.space import Space

if TYPE_CHECKING:
    import torch

Facts: TypeAlias = dict[str, Plain]
"""The content of the file."""

SWEEP_FILE = "sweep.json"
DECIDED_BY_MACHINE = ("train.threads", "train.products")
"""Settings that the machine decides when a sweep begins; a resume keeps them."""
MAY_GROW = ("trials", "concurrent")
"""Facts that may differ in a resume; a population keeps its trials."""
NOT_COMPARED = ("name", "about", "arithmetic", "axes", "config", "rows")
"""Facts that a resume may change, or that are compared by parts or elsewhere."""


def recorded_settings(out: Path) -> dict[str, Plain]:
    """Return the settings that the machine decided when a sweep began, if there is one."""
    if not (out / SWEEP_FILE).is_file():
        return {}
    config = read_json(out / SWEEP_FILE)["config"]
    return {key: config[key] for key in DECIDED_BY_MACHINE if key in config}


def recorded_name(out: Path) -> str | None:
    """Return the name that a sweep began with, whatever its space is called by now."""
    return read_json(out / SWEEP_FILE).get("name") if (out / SWEEP_FILE).is_file() else None


def describe_arithmetic(space: Space, resources: TrialResources) -> Facts:
    """Return how this machine computes; nothing if the trials run elsewhere and record it there."""
    from distvae.train.bits import agree_on_arithmetic

    if resources.address:
        return {}
    arithmetic = agree_on_arithmetic(space.base.train, _device(space, resources))
    return {"arithmetic": arithmetic.facts()}


def refuse_other_bits(space: Space, out: Path, resources: TrialResources) -> None:
    """Refuse to resume a sweep where this machine would not compute the same bits as before."""
    from distvae.train.bits import check_same_arithmetic

    recorded = read_json(out / SWEEP_FILE).get("arithmetic")
    if recorded and not resources.address and space.base.train.bits == "same":
        check_same_arithmetic(space.base.train, recorded, str(out), _device(space, resources))


def _device(space: Space, resources: TrialResources) -> "torch.device":
    """Return the device of trials that all train on this machine."""
    from distvae.train.devices import select_device

    gpus = resources.group.gpus if resources.group else resources.gpus
    return select_device(space.base.train.device, () if gpus == 0 else None)


def describe_sweep(space: Space) -> Facts:
    """Return what a sweep explores, as its file records it."""
    facts: Facts = {
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
    if space.rows:
        rows: Facts = {}
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
    then = _facts_to_keep(before, rows)
    now = _facts_to_keep(after, rows)
    may_grow = ("concurrent",) if space.scheduler == "population" else MAY_GROW
    if changes := describe_changes(before["axes"], after["axes"]):
        raise Refusal(
            f"{out}: a sweep with other axes: {changes}; the axes of before expected, or another -o"
            " for another sweep"
        )
    for name in ("command", *then, *now):
        if name not in may_grow and then.get(name) != now.get(name):
            wanted = "--resume needs the same"
            if name.startswith("row ") and ".data." in name:
                wanted = "--data as before, and the version of distvae that began it, expected"
            elif name.startswith("row "):
                wanted = "the version of distvae that began it expected, or another folder"
            raise Refusal(
                f"{out}: a sweep with {name} {_in_words(then.get(name))}, not"
                f" {_in_words(now.get(name))}; {wanted}"
            )


def _in_words(value: Plain) -> str:
    """Return a fact as a message shows it, a list or a mapping as a space file writes it."""
    return in_yaml(value) if isinstance(value, list | dict) else shown(value)


def _facts_to_keep(facts: Mapping[str, Plain], rows: Iterable[str]) -> Facts:
    """Return the facts that a resumed sweep must share with its beginning.

    The settings of the base, or of the rows given, are named one by one.
    """
    from distvae.train.run_folder import FREE_TO_CHANGE

    configs = {f"row {name}": _section(facts, "rows", name) for name in rows}
    kept = {name: value for name, value in facts.items() if name not in NOT_COMPARED}
    for name, config in (configs or {"config": _section(facts, "config")}).items():
        for key, value in _complete(config).items():
            if key not in FREE_TO_CHANGE:
                kept[f"{name}.{key}"] = value
    return kept


def _section(facts: Mapping[str, Plain], *names: str) -> Mapping[str, Plain]:
    """Return a mapping within the facts."""
    for name in names:
        section = facts[name]
        assert isinstance(section, Mapping)
        facts = section
    return facts


def _complete(stored: Mapping[str, Plain]) -> Facts:
    """Return a stored configuration with the settings that did not exist when it was stored."""
    settings = {key: value for key, value in stored.items() if "." in key}
    others = {key: value for key, value in stored.items() if "." not in key}
    return flatten(from_stored(override({}, settings))) | others
