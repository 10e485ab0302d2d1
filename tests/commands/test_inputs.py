"""Bad input is refused with exit code 2 and one short line, before anything is written."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distvae.config import from_dict
from distvae.config.schema import FAMILIES, field_types
from distvae.files.refusal import MESSAGE, Refusal, shown
from distvae.tune.space import read_axes
from tests.called import Called

HUGE = "1" + "0" * 400
TRAIN = ("train", "bars", "--no-evaluate", "--no-track", "--quiet")
SPACE: dict[str, Any] = {
    "base": "bars",
    "metrics": {"bound": "max"},
    "trials": 2,
    "axes": [{"key": "train.rate", "choice": [0.01, 0.1]}],
}


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, with a cache of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTVAE_DATA", raising=False)


def refused(call: Called, *words: str) -> str:
    """Return the message of a command that is refused and writes nothing."""
    before = sorted(Path.cwd().rglob("*"))
    code, out, err = call(*words)
    assert (code, out) == (2, ""), err[-500:]
    assert err.startswith("distvae: ")
    assert err.count("\n") == 1
    assert len(err) < 500
    assert sorted(Path.cwd().rglob("*")) == before
    return err


def picture(file: Path) -> str:
    """Write a small picture and return its name."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    Image.fromarray(pixels).save(file)
    return str(file)


VALUES_OF_NO_FIELD = {
    f"train.batch={HUGE}": "train.batch",
    "train.rate=.inf": "train.rate",
    "model.variance=.nan": "model.variance",
    f"model.hidden=[8,{HUGE}]": "model.hidden",
    "train.threads=100000": "train.threads",
    "data.correlated={a: 1}": "data.correlated",
    "estep=5": "estep",
    'data.path="a\\0b"': "data.path",
    "train.epochs=" + "x" * 100_000: "train.epochs",
    "train." + "x" * 100_000 + "=1": "train.xxx",
    "x" * 100_000: "xxx",
    "model.hidden=[" + "8," * 2_000 + "8]": "model.hidden",
}
"""One of each kind; any other value is refused as a property of all fields below."""
SIZES = {
    "model.latent=100000000": "model.latent",
    "model.hidden=[100000,100000]": "model.hidden",
    "data.rows=1000000000000": "data.rows",
    "estep.states=1000000000 model.latent=64 model.hidden=[64]": "estep.states",
    "estep.children=64 estep.parents=64 estep.generations=1000 "
    "data.rows=100000 estep.block=100000 model.latent=64 model.hidden=[]": "estep.block",
    "estep.mapped=. estep.states=100000000 model.latent=64": "estep.states",
    "estep.kind=random estep.draws=100000000000": "estep.draws",
}


ENCODED = {
    "estep.hidden=[1000000000]": "estep.hidden",
    "model.net=conv model.channels=[100000,100000]": "model.channels",
    "model.kind=vsc model.prior=pseudo model.pseudo_inputs=10000000000": "model.pseudo_inputs",
    "model.kind=sdm model.dictionary=learned model.atoms=10000000000": "model.atoms",
    "data.size=[100000,100000] data.colour=grey": "data.size",
}
"""The same of models with an encoder."""


@pytest.mark.parametrize("words", VALUES_OF_NO_FIELD)
def test_a_value_that_no_field_can_have_is_refused(words: str, call: Called) -> None:
    assert VALUES_OF_NO_FIELD[words] in refused(call, *TRAIN, words)


@pytest.mark.parametrize("words", [*SIZES, *ENCODED])
def test_more_than_memory_holds_is_refused_with_what_it_needs(
    words: str, call: Called, tmp_path: Path
) -> None:
    train = list(TRAIN)
    if words in ENCODED:
        for number in range(4):
            picture(tmp_path / f"{number}.png")
        train[1:2] = "mnist-vae", "data.kind=images", f"data.path={tmp_path}", "data.test=0.5"
    said = refused(call, *train, *words.split())
    assert (SIZES | ENCODED)[words] in said
    assert "GB" in said


def axis(key: object = "train.rate", **fields: Any) -> dict[str, Any]:
    return {"axes": [{"key": key, **(fields or {"choice": ["a", "b"]})}]}


LONG = {
    "axes": [
        {"key": "train.cycle", "choice": [*range(1, 201)]},
        {"key": "data.seed", "choice": [*range(1, 201)]},
        {"key": "train.rate", "choice": [0.1], "when": {"train.cycle": 1, "data.seed": 1}},
    ]
}
SPACES: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 2**64}, "seed"),
    "trials": ({"trials": 10**12}, "trials"),
    "infinite range": (axis(float=[0.1, math.inf]), "train.rate"),
    "huge range": (axis("train.epochs", int=[1, 10**30]), "train.epochs"),
    "tiny end": (axis(float=[5e-324, 1.0], log=True), "train.rate"),
    "grid": ({"search": "grid", "axes": LONG["axes"][:2]}, "grid"),
    "conditions": (LONG, "combinations"),
    "threads": (axis("train.threads", choice=[1, 2]), "train.threads"),
    "section": (axis("estep"), "axes[0].key"),
    "no key": (axis(5), "axes[0].key"),
    "condition": (axis(choice=[0.1], when={5: 6}), "axes[0].when"),
    "fixed": ({"fixed": {"estep.mapped": "a\0b"}}, "estep.mapped"),
    "long choice": (axis(choice=["x" * 100_000]), "train.rate"),
    "many choices": (axis("data.seed", choice=[*range(2000)]), "data.seed"),
    "memory": (
        axis("model.latent", int=[8, 10**9]) | {"fixed": {"model.hidden": []}},
        "model.latent",
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_space_whose_trials_could_not_run_is_refused_before_ray_starts(
    name: str, call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("Ray is started")

    monkeypatch.setattr("distvae.tune.sweep.ray_session", started)
    change, named = SPACES[name]
    Path("space.yaml").write_text(yaml.safe_dump(SPACE | change))
    assert named in refused(call, "tune", "space.yaml", "--quiet")


@pytest.mark.parametrize("search", ["tpe", "nsga2", "random"])
def test_seeds_of_any_size_give_samplers_a_seed_and_small_ones_what_they_gave(search: str) -> None:
    from distvae.tune.space import read_space
    from distvae.tune.study import make_sampler

    for seed in (2**64 - 1, 4294):
        sampler = make_sampler(read_space("s", SPACE | {"search": search, "seed": seed}), 3)
    if search == "random":
        drawn = sampler._rng.rng.random()
        assert drawn == np.random.RandomState(1_000_003 * 4294 + 3).random()


PLACES = [
    "/proc/run",
    "x" * 300,
    "a/" + "x" * 250 + "/b",
    "x/" * 3000,
    "~nobody/run",
    "\udcff",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_is_refused_before_anything_is_made(
    place: str, call: Called, tmp_path: Path
) -> None:
    table, noisy = tmp_path / "table.npy", picture(tmp_path / "picture.png")
    np.save(table, np.zeros((20, 4), np.float32))
    Path("space.yaml").write_text(yaml.safe_dump(SPACE))
    refused(call, *TRAIN, "-o", place)
    refused(call, "tune", "space.yaml", "--quiet", "-o", place)
    refused(call, "ingest", str(table), place)
    refused(call, "denoise", noisy, f"{place}.png", "--quiet")
    refused(call, "denoise", noisy, "out.png", "--figure", f"{place}.png", "--quiet")
    refused(call, "denoise", noisy, "out.png", "--run", place, "--quiet")


@pytest.mark.parametrize(
    "place", ["~nobody", "x" * 5000, "hdfs://host/x", "gs://", "ftp://u:secret@h/x"]
)
def test_data_that_cannot_be_anywhere_is_refused(place: str, call: Called) -> None:
    for recipe in ("mnist-vae", "natural-linear", "picture-fast"):
        said = refused(call, "train", recipe, "--data", place, "--no-track", "--quiet")
        assert "secret" not in said
    refused(call, "data", "check", place)


def test_an_option_is_held_to_what_its_field_can_be(call: Called, tmp_path: Path) -> None:
    noisy = picture(tmp_path / "picture.png")
    for option in ("--add-noise=1e308", "--sigma=inf", f"--seed={2**64}", f"--stride={HUGE}"):
        refused(call, "denoise", noisy, "out.png", option, "--quiet")
    Path("space.yaml").write_text(yaml.safe_dump(SPACE))
    for workers in ("2 --wait inf", "2 --gpus-per-worker inf", "\u00b2", "9" * 5000):
        refused(call, *TRAIN, "--workers", *workers.split())
        refused(call, "tune", "space.yaml", "--quiet", "--workers", *workers.split())


def test_users_and_passwords_of_uris_are_never_said() -> None:
    for uri in (
        "s3://user:secret@bucket/x",
        "s3:/user:secret@bucket",
        "postgresql+psycopg://user:a/secret@host/db",
    ):
        assert str(Refusal(f"{uri}: wrong")).endswith(": wrong")
        assert "secret" not in str(Refusal(f"{uri}: wrong"))


@settings(max_examples=20)
@given(st.text(max_size=600))
def test_a_refusal_is_one_short_line(text: str) -> None:
    said = str(Refusal(text))
    assert len(said) <= MESSAGE
    assert not set(said) & {"\n", "\r", "\0", "\x1b"}
    assert str(Refusal(said)) == said


def test_a_value_is_shown_short_however_it_is_nested() -> None:
    bomb: list[Any] = ["lol"]
    for _ in range(100):
        bomb = [bomb] * 9
    for value in (bomb, "x" * 10**6, -(2**20_000), {"a" * 10**5: bomb}, b"x" * 10**6, {1, 2}):
        assert len(shown(value)) <= 60


FIELDS = [
    (s, kind, name)
    for s, known in FAMILIES.items()
    for kind, cls in known.items()
    for name in field_types(cls)
]
NASTY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**400, 2**13_000]),
    st.floats(),
    st.sampled_from([1e308, 5e-324, 1e-30, 1e30]),
    st.text(),
    st.binary(),
    st.dates(),
    st.sampled_from(["1e400", "nan", "-inf", "0x10", "1_0", "true", "null", "\0", "\ud800"]),
)
VALUES = st.recursive(
    NASTY,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(FIELDS), VALUES)
def test_any_value_of_any_field_makes_a_configuration_or_is_refused(
    place: tuple[str, str, str], value: Any
) -> None:
    section, kind, name = place
    with suppress(Refusal):
        config = from_dict({section: {"kind": kind, name: value}})
        hint = field_types(FAMILIES[section][kind])[name]
        found = getattr(getattr(config, section), name)
        for part in found if isinstance(found, tuple) else [found]:
            assert not isinstance(part, bool) or hint is bool
            if isinstance(part, float):
                assert part == 0 or 1e-30 <= abs(part) <= 1e30
            if isinstance(part, int):
                assert -(2**63) <= part < 2**64
            if isinstance(part, str):
                assert "\0" not in part


@given(VALUES)
def test_any_value_in_place_of_an_axis_is_read_or_refused(value: Any) -> None:
    axes = [{"key": "train.rate", "choice": value}, {"key": value, "choice": [1]}]
    for field in ("int", "float", "log", "when"):
        axes += [{"key": "train.rate", "choice": [1], field: value}]
        axes += [{"key": "train.rate", field: value}]
    for tree in (value, [value], *([axis] for axis in axes)):
        with suppress(Refusal):
            read_axes(tree)
