"""Make a row of results from an evaluated run, or from a baseline."""

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config import Config, flatten
from distvae.files.refusal import Refusal
from distvae.files.untrusted import read_figures
from distvae.report.reading import read_stages
from distvae.reproduce.rows import write_row

if TYPE_CHECKING:
    from distvae.train.run_folder import RunInfo

NOTHING: Mapping[str, object] = {}


def add_run(
    folder: Path,
    run: Path,
    table: str,
    *,
    force: bool,
    name: str = "",
    extra: Mapping[str, object] = NOTHING,
) -> None:
    """Write the row of an evaluated run; `extra` is added to it."""
    from distvae.files.program import commit
    from distvae.train.run_folder import read_config, read_info

    info = read_info(run)
    for key in ("seconds", "epochs"):
        if key not in info:
            raise Refusal(
                f"{run}/run.json: has no {key}; a run that was trained to its end expected"
            )
    row = {
        "table": table,
        "row": name or run.absolute().name,
        "recipe": info["recipe"],
        "commit": info["commit"],
        "judged_by": commit(),
        "seconds": round(info["seconds"], 1),
        "epochs": info["epochs"],
        "data": {
            "name": info["data"],
            "digest": info["data_digest"][:16],
            "rows": info["rows"],
        },
        "machine": _machine(info),
        "config": _settings(read_config(run, info)),
        "figures": _figures(run),
    }
    write_row(folder, {**row, **extra}, force)


def _machine(info: "RunInfo") -> str:
    """Return the kind and number of processors, and the GPU if one trained. A pushed model does not
    record the machine.
    """
    cores = info.get("machine", {}).get("cpus")
    device = info.get("arithmetic", {}).get("device", "cpu")
    gpu = "" if device == "cpu" else f", {device}"
    return f"{platform.machine()}, {cores} cores{gpu}" if cores else ""


def _figures(run: Path) -> dict[str, object]:
    """Return the metrics of a restoration's last stage, or of the evaluation and the best epoch."""
    from distvae.train.run_folder import read_epochs

    if stages := read_stages(run):
        return _stage_figures(stages)
    summary = run / "evaluation" / "test" / "summary.json"
    if not summary.is_file():
        raise Refusal(f"{summary}: missing; 'distvae evaluate {run}' writes it")
    return {**read_figures(summary), **_best_epoch(run, read_epochs(run))}


def _stage_figures(stages: list[dict[str, float]]) -> dict[str, object]:
    """Return the metrics of the last stage, with PSNR and SNR also by epoch."""
    figures: dict[str, object] = dict(stages[-1])
    for name in ("psnr", "snr"):
        if name in stages[-1]:
            figures[f"{name}_by_epoch"] = [round(stage[name], 3) for stage in stages]
    return figures


def _best_epoch(run: Path, epochs: list[dict[str, float]]) -> dict[str, float]:
    """Return the validation metrics of the best epoch."""
    from distvae.train.run_folder import best_epoch

    if not epochs:
        raise Refusal(
            f"{run / 'epochs.jsonl'}: has no epoch; the file that training wrote expected"
        )
    best = best_epoch(run, epochs)
    figures = {
        name: best[name] for name in ("val_objective", "val_bound", "val_kl") if name in best
    }
    return figures | {"best_epoch": best["epoch"]}


def add_baseline(
    folder: Path, name: str, peer: str, config: Config, table: str, extra: Mapping[str, object]
) -> None:
    """Evaluate a baseline, and write its row of a table; `extra` is added to the row."""
    from distvae.files.program import commit
    from distvae.tasks.baselines import score_baseline

    began = time.perf_counter()
    figures = score_baseline(peer, config, progress=True)
    row = {
        "table": table,
        "row": name,
        "peer": peer,
        "commit": commit(),
        "seconds": round(time.perf_counter() - began, 1),
        "epochs": None,
        "data": {"name": Path(config.data.path).name},
        "config": _data_settings(config),
        "figures": figures,
    }
    write_row(folder, {**row, **extra}, force=True)


def _data_settings(config: Config) -> dict[str, object]:
    """Return the settings of data and evaluation, which are the only settings of a baseline."""
    settings = _settings(config)
    return {key: settings[key] for key in settings if key.startswith(("data.", "eval."))}


def _settings(config: Config) -> dict[str, object]:
    """Return the configuration without the path of the data."""
    return {name: value for name, value in flatten(config).items() if name != "data.path"}
