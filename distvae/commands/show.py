"""What a run is, how its training went, and how it was judged, in words."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distvae.config import Config, to_dict
from distvae.files.untrusted import read_json

SEARCHED = ("sigma", "active", "dead", "distinct_states")
"""What is shown of the best epoch of a model without an encoder."""


def show(run: Path) -> None:
    """Print what there is to know of a run."""
    import yaml

    from distvae.train.run import read_config, read_epochs, read_info

    info, epochs = read_info(run), read_epochs(run)
    config, default = to_dict(read_config(run, info)), to_dict(Config())
    counts = ", ".join(f"{count:,} {split}" for split, count in info["rows"].items())
    print(f"{run}: {info['recipe'] or 'a run'}, commit {info['commit']}, begun {info['begun']}")
    print(f"data: {info['data']}, {counts} {info['unit']}s")
    differing = {
        s: _differing(config[s], default[s]) if isinstance(config[s], dict) else config[s]
        for s in config
    }
    print(
        yaml.safe_dump({s: part for s, part in differing.items() if part}, sort_keys=False).rstrip()
    )
    if epochs:
        best = max(epochs, key=lambda epoch: epoch["val_objective"])
        print(
            f"trained for {len(epochs)} epochs, {info.get('seconds', 0):.0f} s; best at epoch"
            f" {best['epoch']:.0f}:"
        )
        print(f"validation bound {best['val_bound']:.2f} nats per {info['unit']}, {_told(best)}")
    for line in _together(run, epochs):
        print(line)
    for summary in sorted(run.glob("evaluation/*/summary.json")):
        figures = read_json(summary)
        shown = (
            f"{name} {value:.3f}"
            for name, value in figures.items()
            if value is not None and "_" + "std" not in name
        )
        print(f"judged on {summary.parent.name}: {', '.join(shown)}")


def _told(epoch: Mapping[str, float]) -> str:
    """What a model without an encoder has to tell of an epoch, or else how sparse the codes are."""
    known = [f"{name.replace('_', ' ')} {epoch[name]:.3g}" for name in SEARCHED if name in epoch]
    return ", ".join(known) or f"Hoyer {epoch.get('val_hoyer', math.nan):.3f}"


def _together(run: Path, epochs: list[dict[str, float]]) -> Iterator[str]:
    """How several workers trained together: their number each time they began, their shards, what
    waiting cost.
    """
    from distvae.train.events import EVENTS, starts_of
    from distvae.train.run import read_records

    if not (events := starts_of(read_records(run, EVENTS))):
        return
    began = ", ".join(f"{event['workers']} from epoch {event['epoch']}" for event in events)
    yield f"workers: {began}; begun again {len(events) - 1} times"
    if held := events[-1]["bytes"]:
        rows = f"{min(events[-1]['rows']):,} to {max(events[-1]['rows']):,} rows"
        yield f"populations: {len(held)} shards of {rows}, {sum(held) / 1e6:,.1f} MB in all"
    if epochs and "store_get_seconds" in epochs[-1]:
        get, put = (
            sum(epoch[f"store_{what}_seconds"] for epoch in epochs) for what in ("get", "put")
        )
        spent = sum(
            epoch[f"{part}_seconds"] for epoch in epochs for part in ("estep", "mstep", "data")
        )
        again = f"begun anew {epochs[-1]['shard_restarts']:.0f} times"
        yield (
            f"waits for them: {get:.2f} s reading, {put:.2f} s writing, {(get + put) / spent:.1%}"
            f" of a step; {again}"
        )


def _differing(part: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in part.items() if name == "kind" or default.get(name) != value
    }
