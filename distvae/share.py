"""Trained models for other people: the card of a model, and pushed folders.

A pushed folder opens like a run folder, without facts about the machine that trained it. Its file
names follow the Hugging Face hub.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from distvae.config import Config, changed_settings, from_stored, to_dict
from distvae.config.data import CSV
from distvae.config.recipes import recipe_name
from distvae.files.paths import check_writable_folder
from distvae.files.program import refuse_missing
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.files.untrusted import (
    MOST,
    error_text,
    markdown_table,
    one_line,
    parse_json,
    plain_text,
    read_json,
    read_yaml,
)
from distvae.numerics.metrics import SPREAD, meaning, shown, with_spread, without_spreads

CARD = "README.md"
"""The file of a card."""
EPOCHS = "epochs.jsonl"
SUMMARIES = tuple(f"evaluation/{split}/summary.json" for split in ("test", "val", "train", "all"))
"""The files with metrics of a run on the splits of its own data."""
PLACES = ("data.path", "data.speakers", "estep.mapped")
"""Settings that may contain paths of a machine."""
HUB = re.compile(r"hf://([\w-][\w.-]*/[\w-][\w.-]*)")
"""A repository of the hub."""
WEIGHTS = "model.safetensors"
FACTS = (
    *("version", "dims", "shape", "unit", "data", "data_digest", "rows", "val_rows"),
    *("begun", "commit", "versions", "seconds", "epochs", "range"),
)
"""The fields of `run.json` to keep. All other fields name the machine, storage, recordings or
processors.
"""
FIELDS = """---
library_name: distvae
pipeline_tag: feature-extraction
tags: [variational-autoencoder, {model}, {data}]
---

"""
PAGE = """# {name}

{description}. It turns {unit}s of {dims:,} values into codes of {size:,} values, and codes back.

## Training

{facts}

Settings that differ from the defaults:

```
{settings}
```

## Figures

{figures}

The figures hold for this data and for one training. Another seed gives other figures.

## How to load it

```python
import distvae

run = distvae.load(FOLDER)  # where the files of this model are
codes = run.encode(x)  # (rows, {dims}) -> (rows, {size})
again = run.decode(codes)  # (rows, {size}) -> (rows, {dims})
```

In MLflow `mlflow.pyfunc.load_model(URI).predict(x)` returns codes, and with
`params={{"give": "reconstruction"}}` reconstructions. Nothing is unpickled.

## Licence

No licence is stated here. Whoever publishes the model has to choose one, and the licence of
its data may restrict the choice.
"""


def card(run: Path) -> str:
    """Return the card of a trained model, with the metadata of the Hugging Face hub on top."""
    config = _stored_config(run)
    return FIELDS.format(model=config.model.kind, data=config.data.kind) + card_text(run)


def card_text(run: Path) -> str:
    """Return the card of a trained model, made only from the files of its run folder."""
    info, config = read_json(run / "run.json"), _stored_config(run)
    best_epoch = int(read_json(run / "best.json")["facts"]["epoch"])
    settings, unit = changed_settings(config), plain_text(info["unit"])
    counts = [f"{count:,} {plain_text(split)}" for split, count in info["rows"].items()]
    versions = [f"{name} {version}" for name, version in info["versions"].items()]
    facts = {
        "recipe": plain_text(recipe_name(info["recipe"]) or "none"),
        "data": f"{plain_text(info['data'])}, {', '.join(counts)} {unit}s",
        "digest of the data": plain_text(info["data_digest"]),
        "density": config.model.likelihood,
        "epoch of the weights": str(best_epoch),
        "begun": plain_text(info["begun"]),
        "commit": plain_text(info["commit"]),
        "versions": plain_text(", ".join(versions)),
    }
    bound = _validation_bound(run / EPOCHS, best_epoch)
    return PAGE.format(
        name=f"{config.model.kind} on {plain_text(info['data'])}",
        description=" ".join((config.model.__doc__ or "").split()).partition(". ")[0].rstrip("."),
        unit=unit,
        dims=info["dims"],
        size=int(getattr(config.model, "code_size", config.model.latent)),
        facts="\n".join(markdown_table(("fact", "value"), facts.items())),
        settings="\n".join(
            f"{name}={one_line(str(value), MOST)}"
            for name, value in settings.items()
            if name not in PLACES
        ),
        figures="\n".join([f"Bound on validation data: {bound} nats per {unit}.", *_figures(run)]),
    )


def _stored_config(run: Path) -> Config:
    return from_stored(cast(dict[str, object], read_yaml(run / "config.yaml")))


def _validation_bound(file: Path, best_epoch: int) -> str:
    """Return the validation bound of the saved weights."""
    for line in file.read_text().splitlines(keepends=True) if file.is_file() else ():
        if line.endswith("\n"):  # a crash may have cut off the last line
            record = parse_json(line, str(file))
            if record["epoch"] == best_epoch:
                return shown(record["val_bound"])
    return "unrecorded"


def _figures(run: Path) -> Iterator[str]:
    """Yield a table of metrics for each split that was evaluated."""
    for file in summaries(run):
        figures = {name: v for name, v in read_json(run / file).items() if v is not None}
        yield f"\nOn the split `{Path(file).parent.name}`, ± over speakers:\n"
        rows = []
        for name in without_spreads(figures):
            value = with_spread(figures[name], figures.get(name + SPREAD) or None)
            rows.append((plain_text(name), value, meaning(name)))
        yield from markdown_table(("figure", "value", "meaning"), rows)


def summaries(run: Path) -> list[str]:
    """Return the files with metrics of a run on its own data."""
    return [name for name in SUMMARIES if (run / name).is_file()]


def push(run: Path, destination: str) -> None:
    """Write a trained model and its card to a new folder, or to a repository of the hub."""
    if repository := HUB.fullmatch(destination):
        _upload(run, repository[1])
    elif "://" in destination or Path(destination).exists():
        raise Refusal(f"{destination}: a new folder or hf://OWNER/NAME expected")
    else:
        check_writable_folder(Path(destination))
        _export(run, Path(destination))


def _upload(run: Path, repository: str) -> None:
    """Write a model to the hub in one commit. A new repository is private."""
    refuse_missing(f"hf://{repository}", "huggingface_hub")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        _export(run, folder)
        try:
            from huggingface_hub import HfApi

            HfApi().create_repo(repository, private=True, exist_ok=True)
            HfApi().upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message="Push a model of distvae",
                delete_patterns=[EPOCHS, *SUMMARIES],
            )
        except Exception as error:  # the hub's client and the network raise errors of many types
            raise Refusal(
                f"hf://{repository}: {error_text(error)}; a repository that can be reached expected"
            ) from error


def _export(run: Path, folder: Path) -> None:
    """Write the files of a pushed model. The file that makes it openable is written last."""
    from distvae.train.checkpoint import read_manifest
    from distvae.train.run_folder import (
        config_yaml,
        read_config,
        read_info,
        refuse_untrained,
        size_of_rows,
    )

    info = read_info(run)
    size_of_rows(run, info)
    refuse_untrained(run)
    manifest = read_manifest(run, "best.json")
    config = _without_places(read_config(run, info))
    settings = config_yaml(config)
    facts = {name: value for name, value in info.items() if name in FACTS}
    facts["recipe"] = recipe_name(info["recipe"])
    facts["config_sha256"] = hashlib.sha256(settings).hexdigest()
    with Folder(run).open_verified(manifest["tensors"], manifest["sha256"]) as weights:
        folder.mkdir(parents=True)
        with (folder / WEIGHTS).open("wb") as file:
            shutil.copyfileobj(weights, file)
    for name in (*summaries(run), EPOCHS):
        if (run / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / name, folder / name)
    (folder / CARD).write_bytes(card(run).encode())
    (folder / "config.yaml").write_bytes(settings)
    documents = {
        "config.json": {"model_type": config.model.kind, **to_dict(config)},
        "run.json": facts,
        "best.json": {**manifest, "tensors": WEIGHTS},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=1))


def _without_places(config: Config) -> Config:
    """Return a configuration in which a path or URI is cut to its last name."""
    changes = {}
    if "/" in config.data.path:
        changes["path"] = config.data.path.partition("?")[0].rstrip("/").rpartition("/")[2]
    table = getattr(config.data, "speakers", "")
    if table.startswith(CSV):
        changes["speakers"] = CSV + Path(table.removeprefix(CSV)).name
    named = config.with_("data", **changes)
    return named.with_("estep", mapped=None) if hasattr(config.estep, "mapped") else named
