"""The card of a trained model, made only from the files of its run folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from distvae.config import changed_settings, from_stored
from distvae.config.recipes import recipe_name
from distvae.files.markdown import MOST, markdown_table, plain_text
from distvae.files.untrusted import one_line, parse_json, read_json, read_yaml
from distvae.numerics.metrics import SPREAD, meaning, without_spreads
from distvae.numerics.numbers import shown, with_spread

CARD = "README.md"
"""The file of a card."""
EPOCHS = "epochs.jsonl"
SUMMARIES = tuple(f"evaluation/{split}/summary.json" for split in ("test", "val", "train", "all"))
"""The files with metrics of a run on the splits of its own data."""
PLACES = ("data.path", "data.speakers", "estep.mapped")
"""Settings that may contain paths of a machine."""
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


class Card:
    """A Markdown page with the facts of a run."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.info = read_json(run / "run.json")
        self.config = from_stored(cast(dict[str, object], read_yaml(run / "config.yaml")))
        self.best_epoch = int(read_json(run / "best.json")["facts"]["epoch"])
        self.unit = plain_text(self.info["unit"])

    def __str__(self) -> str:
        """Return the page, with the metadata fields of the Hugging Face hub on top."""
        return FIELDS.format(model=self.config.model.kind, data=self.config.data.kind) + self.text

    @property
    def text(self) -> str:
        """The page."""
        model, settings = self.config.model, changed_settings(self.config)
        return PAGE.format(
            name=f"{model.kind} on {plain_text(self.info['data'])}",
            description=" ".join((model.__doc__ or "").split()).partition(". ")[0].rstrip("."),
            unit=self.unit,
            dims=self.info["dims"],
            size=int(getattr(model, "code_size", model.latent)),
            facts="\n".join(markdown_table(("fact", "value"), self._facts())),
            settings="\n".join(
                f"{name}={one_line(str(value), MOST)}"
                for name, value in settings.items()
                if name not in PLACES
            ),
            figures="\n".join(self._figures()),
        )

    def _facts(self) -> Iterator[tuple[str, str]]:
        info = self.info
        counts = [f"{count:,} {plain_text(split)}" for split, count in info["rows"].items()]
        versions = [f"{name} {version}" for name, version in info["versions"].items()]
        yield "recipe", plain_text(recipe_name(info["recipe"]) or "none")
        yield "data", f"{plain_text(info['data'])}, {', '.join(counts)} {self.unit}s"
        yield "digest of the data", plain_text(info["data_digest"])
        yield "density", self.config.model.likelihood
        yield "epoch of the weights", str(self.best_epoch)
        yield "begun", plain_text(info["begun"])
        yield "commit", plain_text(info["commit"])
        yield "versions", plain_text(", ".join(versions))

    def _figures(self) -> Iterator[str]:
        yield f"Bound on validation data: {self._bound()} nats per {self.unit}."
        for file in summaries(self.run):
            figures = {k: v for k, v in read_json(self.run / file).items() if v is not None}
            yield f"\nOn the split `{Path(file).parent.name}`, ± over speakers:\n"
            values = {
                name: with_spread(figures[name], figures.get(name + SPREAD) or None)
                for name in without_spreads(figures)
            }
            rows = [(plain_text(name), value, meaning(name)) for name, value in values.items()]
            yield from markdown_table(("figure", "value", "meaning"), rows)

    def _bound(self) -> str:
        """Return the validation bound of the saved weights."""
        file = self.run / EPOCHS
        for line in file.read_text().splitlines(keepends=True) if file.is_file() else ():
            if line.endswith("\n"):  # a crash may have cut off the last line
                record = parse_json(line, str(file))
                if record["epoch"] == self.best_epoch:
                    return shown(record["val_bound"])
        return "unrecorded"


def summaries(run: Path) -> list[str]:
    """Return the files with metrics of a run on its own data."""
    return [name for name in SUMMARIES if (run / name).is_file()]
