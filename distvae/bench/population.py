"""Population-based training beside random search: the best trial of each after as many epochs.

Both begin with the same trials. Random search trains them to their end. The population replaces the
worst of them by branches of the best, and trains as many at a time for as many epochs.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import yaml

from distvae.bench.output import Output
from distvae.config.recipes import read_tree
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_json
from distvae.tune.space_files import load_space, space_path

WAYS: dict[str, dict[str, str | None]] = {
    "random": {"scheduler": "none", "judge": None, "search": "random"},
    "population": {},
}
"""The fields of the space that each way changes."""


def bench_population(space: str, seeds: int, epochs: int | None, output: Output) -> None:
    """Run sweeps of a space in both ways, for so many seeds of the search."""
    explored = load_space(space)
    if explored.scheduler != "population":
        raise Refusal(f"{space}: scheduler {explored.scheduler}; population expected")
    epochs = epochs or explored.base.train.epochs
    metric, direction = next(iter(explored.metrics.items()))
    figures: dict[str, float] = {}
    with TemporaryDirectory(prefix="distvae-bench-") as folder:
        for seed in range(seeds):
            for way in WAYS:
                best = _best(space, way, seed, epochs, metric, Path(folder))
                figures[f"{way}_{seed}"] = best
                output.show(figures, f"{way}, seed {seed}: best {metric} {best:.4g}")
    figures |= _summary(figures, seeds, 1 if direction == "max" else -1)
    settings = {"trials": explored.trials, "epochs": epochs, "seeds": seeds}
    output.show(figures, _describe_gain(space, metric, figures, seeds))
    name, facts = f"population-{explored.name}-{epochs}", {"section": "Populations"}
    output.keep(name, figures, settings, facts)


def _best(space: str, way: str, seed: int, epochs: int, metric: str, folder: Path) -> float:
    """Run a sweep in a way, one trial after the other, and return the best figure of a trial."""
    file, out = folder / f"{way}-{seed}.yaml", folder / f"{way}-{seed}"
    tree = dict(read_tree(space_path(space))) | WAYS[way] | {"seed": seed}
    file.write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "distvae", "tune", str(file), "--out", str(out), "--quiet"]
    command += ["--stack", "1", "--concurrent", "1", "train.threads=1", f"train.epochs={epochs}"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    best = read_json(out / "results.json")["trials"][0]
    return float(best["figures"][metric])


def _summary(figures: dict[str, float], seeds: int, sign: int) -> dict[str, float]:
    """Return the means of both ways, what a population gains, and for how many seeds it does."""
    gains = [
        sign * (figures[f"population_{seed}"] - figures[f"random_{seed}"]) for seed in range(seeds)
    ]
    means = {way: fmean(figures[f"{way}_{seed}"] for seed in range(seeds)) for way in WAYS}
    return {**means, "gain": fmean(gains), "better": float(sum(gain > 0 for gain in gains))}


def _describe_gain(space: str, metric: str, figures: dict[str, float], seeds: int) -> str:
    return (
        f"{space}: best {metric}, means over {seeds} seeds: random search {figures['random']:.4g},"
        f" population {figures['population']:.4g}; the population is better by"
        f" {figures['gain']:.3g} on average, and for {figures['better']:.0f} seeds"
    )
