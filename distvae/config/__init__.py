"""What a run is: five frozen dataclasses, one per family, validated at the door.

A section (`data`, `model`, `estep`, `train`, `eval`) has one dataclass per family, chosen by its
`kind`. Every mistake is refused with its dotted path and the nearest right name.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distvae.config.data import (
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
from distvae.config.estep import Amortised, Evolution, Exact, RandomSearch, Truncation
from distvae.config.model import Decoder, GumbelModel, SDMModel, TVAEModel, VAEModel, VSCModel
from distvae.config.net import Net
from distvae.config.registry import SECTIONS
from distvae.config.schema import fields_of, read_section
from distvae.config.train import Eval, Train
from distvae.files.refusal import Refusal, nearest

__all__ = [
    "Amortised",
    "BarsData",
    "Config",
    "CropData",
    "DataConfig",
    "Decoder",
    "Eval",
    "Evolution",
    "Exact",
    "Generated",
    "GumbelModel",
    "IdxData",
    "ImageData",
    "Net",
    "PatchData",
    "RandomSearch",
    "RowsData",
    "SDMModel",
    "SpeechData",
    "SpritesData",
    "TVAEModel",
    "Train",
    "Truncation",
    "VAEModel",
    "VSCModel",
    "flatten",
    "from_dict",
    "from_stored",
    "to_dict",
]


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run does."""

    data: DataConfig = field(default_factory=SpeechData)
    model: Any = field(default_factory=VAEModel)
    estep: Any = field(default_factory=Amortised)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        goes_with = getattr(self.estep, "models", ())
        if self.estep.kind not in self.model.estep and self.model.kind not in goes_with:
            wanted = " or ".join(self.model.estep)
            raise Refusal(
                f"estep.kind: '{self.estep.kind}' with model.kind '{self.model.kind}'; {wanted}"
                " expected"
            )
        if isinstance(self.estep, Truncation | Exact):
            self.estep.check_code_size(self.model.latent)
        if self.eval.codes not in self.model.codes:
            wanted = " or ".join(self.model.codes)
            raise Refusal(
                f"eval.codes: '{self.eval.codes}' with model.kind '{self.model.kind}'; {wanted}"
                " expected"
            )

    def with_(self, section: str, **changes: Any) -> "Config":
        """A copy with some fields of one section changed, validated as if read anew."""
        tree = to_dict(self)
        tree[section] |= changes
        return from_dict(tree)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values, nested as in a YAML file, kinds included."""
    tree = {}
    for section in SECTIONS:
        part = getattr(config, section)
        tree[section] = {"kind": part.kind} | _plain(part)
    return tree


def _plain(part: Any) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(part).items()}


def flatten(config: Config) -> dict[str, Any]:
    """Dotted keys, as on the command line."""
    settings = {}
    for section, fields in to_dict(config).items():
        for name, value in fields.items():
            settings[f"{section}.{name}"] = value
    return settings


IGNORED = ("follows",)
"""Settings of earlier versions that decided nothing. Files that hold them are read without them."""
EARLIER: dict[str, dict[str, dict[str, Any]]] = {"data": {"crops": {"contrast": "common"}}}
"""By section and kind, what was done before there was a setting whose default does otherwise."""


def from_stored(tree: Mapping[str, Any]) -> Config:
    """Return the configuration that a run was made with, which may lack settings that are younger
    than the run.
    """
    sections = {
        name: dict(part) if isinstance(part, Mapping) else part for name, part in tree.items()
    }
    for name, kinds in EARLIER.items():
        if isinstance(part := sections.get(name), dict):
            sections[name] = kinds.get(str(part.get("kind")), {}) | part
    return from_dict(sections)


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Return the validated configuration of a nested mapping."""
    for name in tree:
        if name not in (*SECTIONS, *IGNORED):
            raise Refusal(f"{name}: no such section; {nearest(name, SECTIONS)}")
    trees = {name: fields_of(name, tree.get(name)) for name in SECTIONS}
    sections = {name: read_section(name, trees[name]) for name in SECTIONS if name != "estep"}
    sections["estep"] = read_section("estep", {"kind": sections["model"].estep[0]} | trees["estep"])
    return Config(**sections)
