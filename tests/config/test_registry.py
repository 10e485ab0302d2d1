"""Families of other packages: registered like ours, found through entry points, and used."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from distvae import config, estep
from distvae.config import schema
from distvae.config.schema import FAMILIES, Registry, family, settings
from distvae.estep import ESTEPS
from distvae.estep.truncated import RandomSearch
from distvae.files.refusal import Refusal


@pytest.fixture(autouse=True)
def families_of_before() -> Iterator[None]:
    """Leave no family and no implementation behind."""
    families = {section: dict(kinds) for section, kinds in FAMILIES.items()}
    implementations = dict(ESTEPS)
    yield
    FAMILIES.clear()
    FAMILIES.update(families)
    ESTEPS.clear()
    ESTEPS.update(implementations)


def foreign_search() -> None:
    """Register an E-step, as the module of another package does."""

    @family("estep")
    @dataclass(frozen=True)
    class ForeignConfig(config.Truncation):
        kind: ClassVar[str] = "foreign"
        models: ClassVar[tuple[str, ...]] = ("tvae",)

    @estep.register(ForeignConfig)
    class Foreign(RandomSearch):
        """A search of another package."""


def test_an_estep_of_another_package_is_found_built_and_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups: list[str] = []

    class Point(EntryPoint):
        def load(self) -> None:
            foreign_search()

    def entry_points(group: str) -> list[EntryPoint]:
        groups.append(group)
        return [Point("foreign", "foreign", group)] if group == "distvae.esteps" else []

    monkeypatch.setattr(schema, "entry_points", entry_points)
    tree = {"model": {"kind": "tvae", "latent": 6}, "estep": {"kind": "foreign", "states": 3}}
    found = config.from_dict(tree)
    assert groups == ["distvae.esteps"]
    assert type(estep.assemble(found, 5)[1]).__name__ == "Foreign"
    assert config.to_dict(found)["estep"]["states"] == 3
    explained = list(settings())
    kinds = {each.key: each.values for each in explained if each.key.endswith(".kind")}
    assert kinds["estep.kind"].endswith(" or foreign")
    assert "foreign" not in kinds["model.kind"]
    assert "estep.states" in {each.key for each in explained if "foreign" in each.kinds}
    with pytest.raises(Refusal, match=r"estep\.kind: 'foreign' with model\.kind 'vae'"):
        config.from_dict({"model": {"kind": "vae"}, "estep": {"kind": "foreign"}})


def test_families_without_a_part_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Lonely:
        kind: ClassVar[str] = "lonely"

    implementations: Registry[type] = Registry("data")
    with pytest.raises(Refusal, match=r"data\.kind: 'lonely' has a configuration"):
        implementations.implementation(Lonely())
    with pytest.raises(Refusal, match=r"family\('models'\): no such section; one of data, model,"):
        schema.family("models")
    point = EntryPoint("mine", "there_is_no_such_module", "distvae.models")
    monkeypatch.setattr(schema, "entry_points", lambda group: [point])
    message = (
        r"entry point 'mine = there_is_no_such_module' in \[distvae\.models\]: ModuleNotFoundError"
    )
    with pytest.raises(Refusal, match=message):
        config.from_dict({"model": {"kind": "mine"}})
