"""The card of a trained model: what it is, what it was trained on, how good it is, how to load it.

It is made from the files of a run folder alone.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from distvae.config import Config, changed_settings, from_stored
from distvae.config.recipes import recipe_name
from distvae.files.markdown import MOST, markdown_table, plain_text
from distvae.files.plain import Plain
from distvae.files.untrusted import one_line, parse_json, read_json, read_yaml
from distvae.numerics.figures import SPREAD, without_spreads
from distvae.numerics.glossary import meaning
from distvae.numerics.numbers import shown, with_spread
from distvae.share.names import EPOCHS, SUMMARIES

if TYPE_CHECKING:
    from distvae.train.documents import RunInfo

PLACES = ("data.path", "data.speakers", "estep.mapped")
"""Settings that may name places of a machine."""
WITHOUT_LICENCE = (
    "No licence is stated here. Whoever publishes the model has to choose one, and the licence of"
    " its data may restrict the choice."
)


class Card:
    """The facts of a run as a page in Markdown, and for programs as fields before it."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.info = cast("RunInfo", read_json(run / "run.json"))

    def __str__(self) -> str:
        """Return the page, after the fields that the Hugging Face hub reads."""
        import yaml

        fields = yaml.safe_dump(self.fields, sort_keys=False, allow_unicode=True)
        return f"---\n{fields}---\n\n{self.text}"

    @cached_property
    def config(self) -> Config:
        """The configuration of the run."""
        return from_stored(cast(dict[str, object], read_yaml(self.run / "config.yaml")))

    @cached_property
    def name(self) -> str:
        """The model and its data, in a few words."""
        return f"{self.config.model.kind} on {one_line(self.info['data'])}"

    @cached_property
    def unit(self) -> str:
        """The name of a row, as Markdown."""
        return plain_text(self.info["unit"])

    @cached_property
    def figures(self) -> dict[str, dict[str, float]]:
        """The figures of its evaluations, by split."""
        found = {}
        for file in summaries(self.run):
            values = read_json(self.run / file)
            found[Path(file).parent.name] = {k: v for k, v in values.items() if v is not None}
        return found

    @property
    def fields(self) -> dict[str, Plain]:
        """The fields of the hub. The licence is left to whoever publishes the model."""
        config = self.config
        fields: dict[str, Plain] = {
            "library_name": "distvae",
            "pipeline_tag": "feature-extraction",
            "tags": ["variational-autoencoder", config.model.kind, config.data.kind],
        }
        if self.figures:
            fields["model-index"] = [{"name": self.name, "results": list(self._results())}]
        return fields

    def _results(self) -> Iterator[dict[str, Plain]]:
        """Yield the figures of each split, as the hub has them."""
        data = {"name": one_line(self.info["data"]), "type": self.config.data.kind}
        for split, figures in self.figures.items():
            yield {
                "task": {"type": "feature-extraction"},
                "dataset": {**data, "split": split},
                "metrics": [{"type": name, "value": value} for name, value in figures.items()],
            }

    @property
    def text(self) -> str:
        """The page."""
        sections = {
            "What it is for": self._purpose(),
            "Training": self._training(),
            "Figures": self._figures(),
            "Limits": self._limits(),
            "How to load it": self._loading(),
            "Licence": iter([WITHOUT_LICENCE]),
        }
        lines = [f"# {plain_text(self.name)}", "", *self._summary(), ""]
        for title, body in sections.items():
            lines += [f"## {title}", "", *body, ""]
        return "\n".join(lines)

    def _summary(self) -> Iterator[str]:
        kind, program = type(self.config.model), plain_text(self.info["versions"]["distvae"])
        first = " ".join((kind.__doc__ or kind.kind).split()).partition(". ")[0].rstrip(".")
        yield f"{first}. It was trained by distvae {program}."

    def _purpose(self) -> Iterator[str]:
        unit, dims, size = self.unit, self.info["dims"], code_size(self.config)
        yield f"It turns {unit}s of {dims:,} values into codes of {size:,} values, and codes back."
        yield "Codes can be compared and stored, and serve as features."
        yield f"The model can also draw new {unit}s."

    def _training(self) -> Iterator[str]:
        facts = dict(self._facts())
        yield from markdown_table(("fact", "value"), facts.items())
        settings = changed_settings(self.config)
        for place in PLACES:
            settings.pop(place, None)
        yield from ("", "Settings that differ from the defaults:", "", "```")
        yield from (f"{name}={one_line(str(value), MOST)}" for name, value in settings.items())
        yield "```"

    def _facts(self) -> Iterator[tuple[str, str]]:
        info = self.info
        counts = [f"{count:,} {plain_text(split)}" for split, count in info["rows"].items()]
        yield "recipe", plain_text(recipe_name(info["recipe"]) or "none")
        yield "data", f"{plain_text(info['data'])}, {', '.join(counts)} {self.unit}s"
        yield "digest of the data", plain_text(info["data_digest"])
        if shape := info.get("shape"):
            yield "shape of a row", " x ".join(map(str, shape))
        if "range" in info:
            yield "values", "from {:.4g} to {:.4g}".format(*info["range"])
        yield "density", self.config.model.likelihood
        if "epochs" in info:
            yield "epochs", f"{info['epochs']}; the weights are those of epoch {self._best_epoch()}"
            yield "seconds", f"{info['seconds']:.0f}"
        yield "seed", str(self.config.train.seed)
        yield "begun", plain_text(info["begun"])
        yield "commit", plain_text(info["commit"])
        versions = [f"{name} {version}" for name, version in info["versions"].items()]
        yield "versions", plain_text(", ".join(versions))

    def _best_epoch(self) -> int:
        return int(read_json(self.run / "best.json")["facts"]["epoch"])

    def _figures(self) -> Iterator[str]:
        yield f"Bound on validation data: {self._bound()} nats per {self.unit}."
        if not self.figures:
            yield "It was not evaluated further."
        for split, figures in self.figures.items():
            yield from ("", f"On the split `{split}`:", "")
            names = without_spreads(figures)
            rows = [
                (
                    plain_text(name),
                    with_spread(figures[name], figures.get(name + SPREAD) or None),
                    meaning(name),
                )
                for name in names
            ]
            yield from markdown_table(("figure", "value", "meaning"), rows)
            if len(names) < len(figures):
                yield from ("", "After ± is the standard deviation over speakers.")

    def _bound(self) -> str:
        """Return the validation bound of the weights that were kept."""
        best = self._best_epoch()
        for line in self._epoch_lines():
            record = parse_json(line, str(self.run / EPOCHS))
            if record["epoch"] == best:
                return shown(record["val_bound"])
        return "unrecorded"

    def _epoch_lines(self) -> list[str]:
        """Return the records of epochs; a crash may have cut the last one short."""
        file = self.run / EPOCHS
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        return [line for line in lines if line.endswith("\n")]

    def _limits(self) -> Iterator[str]:
        yield "- The figures hold for the data above alone."
        yield "- They are those of one training. Another seed gives other figures."
        yield "- Rows need values in the units of the training data; others are refused or misread."
        if self.config.estep.kind != "amortised":
            yield "- A search finds the code of a new row. It takes longer than an encoder."
        if self.config.data.kind == "speech":
            yield "- A decoded frame has no phase. `run.reconstruct` takes the phase of its input."

    def _loading(self) -> Iterator[str]:
        size, width = code_size(self.config), self.info["dims"]
        yield "```python"
        yield "import distvae"
        yield ""
        yield "run = distvae.load(PLACE)  # its folder, or its URI: s3://bucket/name, hf://owner/name"
        yield f"codes = run.encode(x)  # (rows, {width}) -> (rows, {size})"
        yield f"again = run.decode(codes)  # (rows, {size}) -> (rows, {width})"
        yield "```"
        yield ""
        yield "In MLflow `mlflow.pyfunc.load_model(URI).predict(x)` returns codes, and with"
        yield '`params={"give": "reconstruction"}` reconstructions. Nothing is unpickled.'


def summaries(run: Path) -> list[str]:
    """Return the files with figures of a run on its own data."""
    return [name for name in SUMMARIES if (run / name).is_file()]


def code_size(config: Config) -> int:
    """Return the number of values of a code."""
    return int(getattr(config.model, "code_size", config.model.latent))
