"""The configuration of a run: one frozen dataclass per section, validated when it is read.

A section (`data`, `model`, `estep`, `train`, `eval`) has one dataclass per family, chosen by its
`kind`. An error names the dotted path of the setting and the nearest valid name.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from distvae.config.data import (
    AtomsData,
    BarsData,
    CropData,
    DataConfig,
    Generated,
    IdxData,
    ImageData,
    PatchData,
    RowsData,
    SpeechData,
    SpritesData,
)
from distvae.config.model import (
    AllSupports,
    Amortised,
    Decoder,
    EStepConfig,
    Evolution,
    Exact,
    GumbelModel,
    ModelConfig,
    Net,
    RandomSearch,
    SDMModel,
    Selection,
    SpikeSlabModel,
    Truncation,
    TVAEModel,
    VAEModel,
    VSCModel,
)
from distvae.config.schema import SECTIONS, fields_of, read_section
from distvae.config.train import Eval, Train
from distvae.files.refusal import Refusal, nearest
from distvae.files.untrusted import Plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "AllSupports",
    "Amortised",
    "AtomsData",
    "BarsData",
    "Config",
    "CropData",
    "DataConfig",
    "Decoder",
    "EStepConfig",
    "Eval",
    "Evolution",
    "Exact",
    "Generated",
    "GumbelModel",
    "IdxData",
    "ImageData",
    "ModelConfig",
    "Net",
    "PatchData",
    "RandomSearch",
    "RowsData",
    "SDMModel",
    "Selection",
    "SpeechData",
    "SpikeSlabModel",
    "SpritesData",
    "TVAEModel",
    "Train",
    "Truncation",
    "VAEModel",
    "VSCModel",
    "changed_settings",
    "flatten",
    "from_dict",
    "from_stored",
    "to_dict",
]


@dataclass(frozen=True)
class Config:
    """The complete configuration of a run."""

    data: DataConfig = field(default_factory=SpeechData)
    model: ModelConfig = field(default_factory=VAEModel)
    estep: EStepConfig = field(default_factory=Amortised)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)

    def __post_init__(self) -> None:
        """Refuse sections that do not fit each other."""
        goes_with = getattr(self.estep, "models", ())
        if self.estep.kind not in self.model.estep and self.model.kind not in goes_with:
            wanted = " or ".join(self.model.estep)
            raise Refusal(
                f"estep.kind: '{self.estep.kind}' with model.kind '{self.model.kind}'; {wanted}"
                " expected"
            )
        if isinstance(self.estep, Truncation | Exact | AllSupports):
            self.estep.check_code_size(self.model.latent)
        finds_noise = (self.model.kind, self.model.likelihood) == ("tvae", "gaussian")
        sigma, stops = self.train.sigma, self.train.stop_at_noise
        if (sigma or stops) and not finds_noise:
            setting = f"sigma: {sigma:g}" if sigma else "stop_at_noise: true"
            raise Refusal(
                f"train.{setting} with model.kind '{self.model.kind}' and"
                f" model.likelihood '{self.model.likelihood}'; tvae and gaussian expected"
            )
        if self.eval.codes not in self.model.codes:
            wanted = " or ".join(self.model.codes)
            raise Refusal(
                f"eval.codes: '{self.eval.codes}' with model.kind '{self.model.kind}'; {wanted}"
                " expected"
            )

    def with_(self, section: str, **changes: object) -> "Config":
        """Return a copy with some fields of one section changed, and validate it."""
        tree = to_dict(self)
        return from_dict(tree | {section: tree[section] | changes})


def to_dict(config: Config) -> dict[str, dict[str, Plain]]:
    """Return a configuration as nested plain values, as in a YAML file."""
    tree = {}
    for section in SECTIONS:
        part = getattr(config, section)
        tree[section] = {"kind": part.kind} | _plain(part)
    return tree


def _plain(part: "DataclassInstance") -> dict[str, object]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(part).items()}


def flatten(config: Config) -> dict[str, Plain]:
    """Return a configuration by dotted key, as on the command line."""
    settings = {}
    for section, fields in to_dict(config).items():
        for name, value in fields.items():
            settings[f"{section}.{name}"] = value
    return settings


def changed_settings(config: Config) -> dict[str, Plain]:
    """Return the kind of each section, and its settings that differ from the defaults."""
    changed = {}
    for section, fields in to_dict(config).items():
        kind = fields["kind"]
        defaults = _plain(read_section(section, {"kind": kind}))
        for name, value in fields.items():
            if name == "kind" or value != defaults[name]:
                changed[f"{section}.{name}"] = value
    return changed


IGNORED = ("follows",)
"""Settings of earlier versions without effect. They are ignored in files that contain them."""


EARLIER: list[tuple[str, dict[str, Plain], dict[str, Plain]]] = [
    ("data", {"kind": "crops"}, {"contrast": "common"}),
    ("model", {"kind": "vae", "likelihood": "gaussian"}, {"variance": 1.0}),
    ("model", {"kind": "sdm", "likelihood": "gaussian"}, {"variance": 1.0}),
    ("model", {"kind": "vsc", "likelihood": "gaussian"}, {"variance": 1.0}),
    ("model", {"kind": "gumbel", "likelihood": "gaussian"}, {"variance": 1.0}),
]
"""Settings newer than some runs, whose present defaults differ from the behaviour of these runs: a
section, its settings that identify these runs, and their behaviour as settings.
"""


def from_stored(tree: Mapping[str, object]) -> Config:
    """Return the configuration stored with a run, which may lack newer settings."""
    sections = {
        name: dict(part) if isinstance(part, Mapping) else part for name, part in tree.items()
    }
    for section, where, were in EARLIER:
        part = sections.get(section)
        if isinstance(part, dict) and where.items() <= part.items():
            sections[section] = were | part
    return from_dict(sections)


def from_dict(tree: Mapping[str, object]) -> Config:
    """Return the validated configuration of a nested mapping."""
    for name in tree:
        if name not in (*SECTIONS, *IGNORED):
            raise Refusal(f"{name}: no such section; {nearest(name, SECTIONS)}")
    trees = {name: fields_of(name, tree.get(name)) for name in SECTIONS}
    sections = {name: read_section(name, trees[name]) for name in SECTIONS if name != "estep"}
    sections["estep"] = read_section("estep", {"kind": sections["model"].estep[0]} | trees["estep"])
    return Config(**sections)
