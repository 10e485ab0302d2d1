"""`distvae show`: print the settings of a run, how its training went, and its scores."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from distvae.config import changed_settings
from distvae.files.untrusted import one_line, read_figures

SEARCHED = ("sigma", "active", "dead", "distinct_states")
"""The figures shown for the best epoch of a model without an encoder."""


def show_run(run: Path) -> None:
    """Print the settings of a run, how its training went, and its scores."""
    import yaml

    from distvae.train.run import best_epoch, read_config, read_epochs, read_info

    info, epochs = read_info(run), read_epochs(run)
    counts = ", ".join(f"{count:,} {split}" for split, count in info["rows"].items())
    commit = f"commit {info['commit']}" if info["commit"] else "not from a checkout"
    print(f"{run}: {info['recipe'] or 'a run'}, {commit}, started {info['begun']}")
    print(f"data: {info['data']}, {counts} {info['unit']}s")
    changed = changed_settings(read_config(run, info))
    print(yaml.safe_dump(changed, sort_keys=False).rstrip())
    if epochs:
        best = best_epoch(run, epochs)
        seconds = info.get("seconds") or epochs[-1]["seconds"]
        length = f"{len(epochs)} epoch{'s' * (len(epochs) != 1)}, {seconds:.0f} s"
        print(f"trained for {length}; best at epoch {best['epoch']:.0f}:")
        bound = f"{best['val_bound']:.2f} nats per {info['unit']}"
        print(f"validation bound {bound}, {_describe_codes(best)}")
        if noise := info.get("noise"):
            print(f"white noise in the rows: {noise:.3g}; training ends early if sigma is below it")
    for line in _describe_workers(run):
        print(line)
    for line in _describe_scores(run):
        print(line)


def _describe_codes(epoch: Mapping[str, float]) -> str:
    """Return figures of the search over states, or else how sparse the codes are."""
    figures = [f"{name.replace('_', ' ')} {epoch[name]:.3g}" for name in SEARCHED if name in epoch]
    return ", ".join(figures) or f"Hoyer {epoch.get('val_hoyer', math.nan):.3f}"


def _describe_workers(run: Path) -> Iterator[str]:
    """Yield how many workers trained together, and how many populations they hold."""
    from distvae.train.events import read_events, starts_of

    starts = starts_of(read_events(run))
    if not starts:
        return
    workers = ", ".join(f"{event['workers']} from epoch {event['epoch']}" for event in starts)
    yield f"workers: {workers}; restarted {len(starts) - 1} times"
    last = starts[-1]
    if sum(sizes := last["bytes"]):
        rows = f"{min(last['rows']):,} to {max(last['rows']):,} rows"
        yield f"populations: {rows} a worker, {sum(sizes) / 1e6:,.1f} MB in all"


def _describe_scores(run: Path) -> Iterator[str]:
    """Yield the scores of each evaluation of a run."""
    from distvae.numerics.figures import without_spreads
    from distvae.numerics.numbers import shown

    for file in sorted(run.glob("evaluation/*/summary.json")):
        figures = read_figures(file)
        known = [(name, figures[name]) for name in without_spreads(figures)]
        scores = [f"{name} {shown(value)}" for name, value in known if value is not None]
        yield f"evaluated on {one_line(file.parent.name)}: {', '.join(scores)}"
