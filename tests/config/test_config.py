"""A valid configuration survives a round trip. An invalid setting is refused by its dotted path."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from distvae.config import flatten, from_dict, from_stored, to_dict
from distvae.config.recipes import (
    load,
    override,
    parse_assignments,
    read_tree,
    recipe_names,
    recipe_path,
)
from distvae.config.schema import FAMILIES, SECTIONS, field_types
from distvae.files.refusal import Refusal
from distvae.tune.space import vary

KNOWN = [
    (section, kind, name)
    for section, families in FAMILIES.items()
    for kind, cls in families.items()
    for name in field_types(cls)
]


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_is_read_again_and_lists_only_what_differs_from_the_defaults(recipe: str) -> None:
    config = load(recipe)
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config
    assert from_dict(override({}, flatten(config))) == config
    for section, fields in read_tree(recipe_path(recipe)).items():
        if section in SECTIONS:
            default = vars(type(getattr(config, section))())
            for name, value in fields.items():
                plain = tuple(value) if isinstance(value, list) else value
                assert name == "kind" or plain != default[name], f"{section}.{name}"


@given(st.sampled_from(KNOWN), st.data())
def test_every_typo_is_refused_with_its_path_and_the_nearest_name(
    place: tuple[str, str, str], data: Any
) -> None:
    section, kind, name = place
    cut = data.draw(st.integers(0, len(name) - 1))
    typo = name[:cut] + "_" + name[cut:]
    with pytest.raises(Refusal) as refused:
        from_dict({section: {"kind": kind, typo: 1}})
    assert f"{section}.{typo}" in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"trian": {}}, "trian"),
        ({"train": {"epochs": 0}}, "train.epochs"),
        ({"train": {"epochs": 2.5}}, "train.epochs"),
        ({"train": {"epochs": True}}, "train.epochs"),
        ({"train": {"rate": float("nan")}}, "train.rate"),
        ({"train": {"patience": 0}}, "train.patience"),
        ({"train": {"schedule": "cosin"}}, "train.schedule"),
        ({"train": {"batch": 512, "scale_rate": "root"}}, "train.base_batch: null with train.sc"),
        ({"train": [1]}, "train"),
        ({"model": {"kind": "vea"}}, "model.kind"),
        ({"model": {"kind": {"vae": 1}}}, "model.kind"),
        ({"model": {"hidden": [128, 0]}}, "model.hidden[1]"),
        ({"model": {"hidden": 128}}, "model.hidden"),
        ({"model": {"kind": "vsc", "alpha": 1.0}}, "model.alpha"),
        ({"model": {"kind": "vsc", "slab_warmup": [5, 1]}}, "model.slab_warmup"),
        ({"model": {"kind": "sdm", "atoms": 64}}, "model.atoms"),
        ({"model": {"kind": "sdm", "coherence": 1.0}}, "model.coherence"),
        (
            {"model": {"kind": "tvae", "latent": 3}, "estep": {"states": 8, "children": 4}},
            "estep.children: 4, each",
        ),
        (
            {
                "model": {"kind": "tvae", "latent": 1},
                "estep": {"states": 2, "parents": 2, "crossover": "one_point"},
            },
            "estep.crossover",
        ),
        ({"data": {"hop": 300}}, "data.hop"),
        ({"data": {"hop": 1}}, "data.hop: 1 with data.window = 1024; at least 16 expected"),
        (
            {"data": {"kind": "sprites", "rows": 10, "val": 0.89, "test": 0.01}},
            "data.val + data.test: 9 + 1 of 10",
        ),
        ({"data": {"val": 0.6, "test": 0.6}}, "data.val"),
        ({"eval": {"metrics": ["pesq"]}}, "eval.metrics[0]"),
        ({"followed": "paper"}, "followed"),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_path(tree: dict[str, Any], path: str) -> None:
    with pytest.raises(Refusal, match=r".+") as refused:
        from_dict(tree)
    assert str(refused.value).startswith(path)


def test_assignments_are_read_as_yaml_whatever_their_order() -> None:
    """A changed kind drops what the new family lacks."""
    tree = override({"model": {"kind": "vsc", "alpha": 0.3, "latent": 8}}, {"model.kind": "vae"})
    assert tree["model"] == {"kind": "vae", "latent": 8}
    words = ["train.epochs=3", "train.rate=1e-4", "model.hidden=[64, 32]", "train.patience=null"]
    found = from_dict(
        override({}, parse_assignments([*words, "model.alpha=0.3", "model.kind=vsc"]))
    )
    model, train = {"kind": "vsc", "alpha": 0.3, "hidden": [64, 32]}, {"epochs": 3, "rate": 1e-4}
    assert found == from_dict({"model": model, "train": train})


@pytest.mark.parametrize(
    "word", ["train.epochs", " =3", ".epochs=3", "train.=3", "train.epochs==3", "train.epochs=[1"]
)
def test_what_is_not_an_assignment_is_refused(word: str) -> None:
    with pytest.raises(Refusal):
        parse_assignments([word])


@pytest.mark.parametrize("kind", ["vae", "sdm", "vsc", "gumbel"])
def test_what_older_runs_did_is_read_where_their_configuration_says_nothing(kind: str) -> None:
    tree: dict[str, Any] = {"model": {"kind": kind, "likelihood": "gaussian"}}
    assert flatten(from_stored(tree))["model.variance"] == 1.0
    assert flatten(from_dict(tree))["model.variance"] is None
    other = {"model": {"kind": kind, "likelihood": "bernoulli"}}
    assert flatten(from_stored(other))["model.variance"] is None
    for read in (from_dict, from_stored):  # a setting that decided nothing
        assert read({"follows": "paper", "train": {"seed": 3}}) == from_dict({"train": {"seed": 3}})


@pytest.mark.parametrize("scale", ["root", "linear"])
def test_scaled_rates_are_meant_for_the_batch_of_the_recipe(scale: str) -> None:
    own: dict[str, Any] = {"train.batch": 512, "train.scale_rate": scale}
    for recipe, batch in {"mnist-vae": 32, "speech-vae": 128}.items():
        assert load(recipe, own).train.base_batch == batch
        assert vary(load(recipe), own).train.base_batch == batch  # a trial of a sweep
        assert load(recipe, own | {"train.base_batch": 64}).train.base_batch == 64
    again = to_dict(load("mnist-vae", own))
    assert vary(from_dict(again), {"train.batch": 1024}).train.base_batch == 32
    assert load("mnist-vae", {"train.batch": 512}).train.base_batch is None
