"""Search spaces: refusals at the door, and that a parameter never varies where it does not
apply.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config.recipes import load
from distvae.files.refusal import Refusal
from distvae.numerics.metrics import group_of
from distvae.tune.space import Space, read_space, space_names
from distvae.tune.validation import load_space, ranking_figures, validate_space

Tree = dict[str, Any]
SPEECH: Tree = {
    "base": "speech-vae",
    "metrics": {"pesq_wb": "max", "hoyer": "max"},
    "axes": [
        {"key": "model.kind", "choice": ["vae", "vsc", "sdm"]},
        {"key": "model.latent", "choice": [16, 32, 64]},
        {"key": "model.alpha", "float": [0.05, 0.95], "when": {"model.kind": "vsc"}},
        {"key": "train.rate", "choice": [1e-3], "when": {"model.kind": "vsc"}},
        {
            "key": "model.dictionary",
            "choice": ["identity", "dct", "learned"],
            "when": {"model.kind": "sdm"},
        },
        {
            "key": "model.atoms",
            "choice": [32, 64, 128],
            "when": {"model.dictionary": ["dct", "learned"]},
        },
    ],
}


def read_tree(tree: Tree) -> Space:
    space = read_space("a space", tree)
    validate_space(space)
    return space


def suggestions(space: Space, count: int, seed: int = 0) -> list[Tree]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


KINDS = st.lists(st.sampled_from(["vae", "vsc", "sdm"]), min_size=1, unique=True)
DICTIONARIES = st.lists(st.sampled_from(["identity", "dct", "learned"]), min_size=1, unique=True)
SHARES = st.floats(0.01, 0.99)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Any kinds, each with some of the axes it allows, in any order that puts a condition after
    the keys that it depends on.
    """
    kinds, dictionaries = draw(KINDS), draw(DICTIONARIES)
    low, high = sorted([draw(SHARES), draw(SHARES)])
    axes: list[Tree] = [{"key": "model.kind", "choice": kinds}]
    if "vsc" in kinds and low < high and draw(st.booleans()):
        axes.append({"key": "model.alpha", "float": [low, high], "when": {"model.kind": "vsc"}})
    if "sdm" in kinds and draw(st.booleans()):
        when: Tree = {"model.kind": "sdm"}
        axes.append({"key": "model.dictionary", "choice": dictionaries, "when": when})
        full = [name for name in dictionaries if name != "identity"]
        if draw(st.booleans()) and full:
            when = {"model.dictionary": full}
            axes.append({"key": "model.atoms", "int": [8, 64], "log": True, "when": when})
    axes.insert(draw(st.integers(0, len(axes))), {"key": "model.latent", "choice": [4, 8]})
    return read_tree({"base": "speech-vae", "metrics": {"hoyer": "max"}, "axes": axes})


@settings(max_examples=25)
@given(spaces(), st.integers(0, 2**31))
def test_every_suggestion_is_a_configuration_of_one_branch_without_settings_that_do_not_apply(
    space: Space, seed: int
) -> None:
    def deciding(values: Tree) -> Tree:
        return {key: value for key, value in values.items() if key in space.condition_keys}

    branches = [deciding(branch) for branch in space.branches()]
    for values in suggestions(space, 3, seed):
        assert ("model.alpha" not in values) or values["model.kind"] == "vsc"
        assert ("model.dictionary" not in values) or values["model.kind"] == "sdm"
        assert ("model.atoms" not in values) or values.get("model.dictionary") in ("dct", "learned")
        config = space.config(values)
        for key, value in values.items():
            section, _, name = key.partition(".")
            assert getattr(getattr(config, section), name) == value
        assert branches.count(deciding(values)) == 1


def test_an_axis_may_come_twice_and_a_pinned_key_no_longer_varies() -> None:
    tree = copy.deepcopy(SPEECH)
    when = {"model.kind": ["vae", "sdm"]}
    tree["axes"].append({"key": "train.rate", "float": [2e-3, 4e-3], "log": True, "when": when})
    space = read_tree(tree)
    keys = ("model.kind", "model.dictionary")
    dictionaries = [("sdm", name) for name in ("identity", "dct", "learned")]
    found = [tuple(branch.get(key) for key in keys) for branch in space.branches()]
    assert found == [("vae", None), ("vsc", None), *dictionaries]
    rates = {values["model.kind"]: values["train.rate"] for values in suggestions(space, 12)}
    assert rates["vsc"] == 1e-3
    assert all(2e-3 <= rates[kind] <= 4e-3 for kind in ("vae", "sdm"))
    pinned = space.pinned({"model.kind": "vsc", "model.latent": 8})
    for values in suggestions(pinned, 2):
        assert values.keys() == {"model.alpha", "train.rate"}
        assert (pinned.config(values).model.kind, pinned.config(values).model.latent) == ("vsc", 8)


def change(axis: int, **fields: Any) -> Callable[[Tree], None]:
    return lambda tree: tree["axes"][axis].update(fields)


def put(**fields: Any) -> Callable[[Tree], None]:
    return lambda tree: tree.update(fields)


def append(**axis: Any) -> Callable[[Tree], None]:
    return lambda tree: tree["axes"].append(axis)


IMAGES: Tree = {
    "base": "mnist-vae",
    "fixed": {"eval.metrics": ["iw_bound", "probe_linear"]},
    "metrics": {"probe_linear": "max", "iw_bound": "max"},
    "axes": [{"key": "model.latent", "choice": [8, 16]}],
}
RATE = [{"key": "train.rate", "float": [1e-3, 1e-2]}]
PICTURES: Tree = {"base": "picture-fast", "metrics": {"psnr": "max"}, "axes": RATE}
BARS: Tree = {
    "base": "bars",
    "metrics": {"squared_error": "min", "bound": "max"},
    "trials": 8,
    "search": "random",
    "scheduler": "population",
    "judge": {"interval": 50},
    "axes": RATE,
}
SEEDS = [{"key": "train.seed", "choice": [1, 2]}]
PSEUDO = [{"key": "model.prior", "choice": ["fixed", "pseudo"]}]
NOISES = [{"key": "data.noise", "choice": [0, 25]}]

REFUSED: list[tuple[Tree, Callable[[Tree], object], str]] = [
    (SPEECH, put(metric={}), r"metric: no such field of a space; did you mean 'metrics'"),
    (SPEECH, change(1, chioce=[1]), r"axes\[1\]\.chioce.*did you mean 'choice'"),
    (SPEECH, put(metrics={"pesq_bw": "max"}), r"metrics\.pesq_bw: .*did you mean 'pesq_wb'"),
    (SPEECH, put(metrics={"pesq_wb": "maximum"}), r"metrics\.pesq_wb: no choice 'maximum'.*'max'"),
    (SPEECH, put(metrics={}), r"metrics: at least one"),
    (SPEECH, lambda tree: tree.pop("base"), r"base: missing; a recipe"),
    (SPEECH, put(axes=3), r"axes: a list of at least one axis expected"),
    (SPEECH, put(trials=0), r"trials: 0 is out of range"),
    (SPEECH, put(base="speech-vea"), r"did you mean 'speech-vae'"),
    (SPEECH, change(1, choice=[16, 0]), r"axes\[1\].*model\.latent: 0 is out of range"),
    (SPEECH, change(1, choice=[]), r"choice: \[\]; a list of at least one"),
    (SPEECH, change(1, choice=[16, 16]), r"16 is listed twice"),
    (SPEECH, change(1, int=[1, 2]), r"one of choice, int and float expected; choice and int given"),
    (SPEECH, change(1, key="modle.latent"), r"axes\[1\] .*: modle: no such section; .*'model'"),
    (SPEECH, change(1, key="model.latnet"), r"axes\[1\] .*model.latnet: no such field .*'latent'"),
    (
        SPEECH,
        change(4, choice=["dct", "lerned"]),
        r"axes\[4\] \(model.dictionary\): model.dictionary: no choice 'lerned'; .* 'learned'",
    ),
    (SPEECH, change(2, float=[0.9, 0.1]), r"two rising numbers expected"),
    (SPEECH, append(key="model.beta", float=[0, 1], log=True), r"rising numbers above 0 expected"),
    (
        SPEECH,
        lambda tree: tree["axes"][2].pop("when"),
        r"model\.kind 'vae' has no alpha; add when: \{model\.kind: \[vsc, gumbel\]\}",
    ),
    (
        SPEECH,
        change(2, when={"model.knid": "vsc"}),
        r"model\.knid: no such key; did you mean 'model\.kind'",
    ),
    (SPEECH, change(2, when={"model.kind": "vcs"}), r"'vcs' is never chosen; did you mean 'vsc'"),
    (SPEECH, change(1, when={"model.dictionary": "dct"}), r"does not vary before this axis"),
    (
        SPEECH,
        append(key="model.beta", choice=[1], when={"model.alpha": 0.5}),
        r"only a choice can",
    ),
    (
        SPEECH,
        change(5, when={"model.dictionary": "dct", "model.kind": "vsc"}),
        r"axes\[5\] \(model\.atoms\)\.when: its conditions never hold together",
    ),
    (SPEECH, append(key="model.latent", choice=[8]), r"varies twice for"),
    (
        SPEECH,
        change(5, when={"model.dictionary": ["identity", "dct"]}),
        r"axes\[5\] \(model\.atoms\): model\.atoms: .*identity.*model.dictionary identity",
    ),
    (SPEECH, put(fixed={"model.latent": 8}), r"fixed\.model\.latent: is also an axis"),
    (IMAGES, put(fixed={}), r"metrics.probe_linear: not measured; eval.metrics: \[probe_linear\]"),
    (
        IMAGES,
        put(axes=[{"key": "model.kind", "choice": ["vae", "vsc"]}]),
        "metrics.iw_bound: bounds do not compare",
    ),
    (IMAGES, put(base="bars"), "base and fixed: eval.metrics: iw_bound needs an encoder"),
    (
        IMAGES,
        put(axes=[{"key": "eval.codes", "choice": ["mean", "gated"]}]),
        "eval.codes: 'gated' with model.kind 'vae'; mean expected",
    ),
    (
        IMAGES,
        put(base="mnist-vsc", fixed={}, metrics={"val_bound": "max"}, axes=PSEUDO),
        r"bounds do not compare where model\.prior varies",
    ),
    (
        IMAGES,
        put(search="grid", axes=[{"key": "model.latent", "int": [2, 64]}]),
        r"axes\[0\] \(model.latent\): an interval has no grid",
    ),
    (IMAGES, put(scheduler="asha"), "scheduler: asha serves one figure"),
    (
        SPEECH,
        put(scheduler="median", metrics={"hoyer": "max"}),
        "scheduler: median compares bounds",
    ),
    (IMAGES, put(seeds=3, axes=SEEDS), "seeds: 3 repeats every trial"),
    (PICTURES, put(), "metrics.psnr: compares with the clean original"),
    (
        PICTURES,
        put(base="bars", metrics={"pesq_wb": "max"}),
        r"tvae, or data\.kind speech, expected",
    ),
    (
        PICTURES,
        put(fixed={"data.noise": 5}, metrics={"snr_gain": "max"}),
        "snr_gain: no such figure",
    ),
    (
        PICTURES,
        put(base="sound-fast", fixed={"data.noise": 0.1}),
        "metrics.psnr: no such figure",
    ),
    (PICTURES, put(axes=NOISES), "missing for every trial"),
    (BARS, put(axes=[{"key": "model.latent", "int": [8, 9]}]), "gives their shape"),
    (BARS, put(judge=None), "population replaces trials by a metric"),
    (BARS, put(search="tpe"), "search: tpe"),
    (BARS, put(trials=3), "a population of 3; at least 4"),
    (BARS, put(fixed={"train.patience": 3}), "train.patience: 3"),
    (BARS, put(seeds=2), "a trial of a population is one run"),
    (BARS, put(axes=SEEDS), "one that may change while a model trains"),
    (BARS, put(judge={"interval": 2, "metric": "psnr"}), "judge.metric: psnr is not"),
    (BARS, put(judge={"metric": "bound"}), "judge: .* an interval in epochs expected"),
    (BARS, put(judge={"interval": 2, "by": "bound"}), "judge.by: no such field"),
    (BARS, put(scheduler="none"), "judge: nobody asks it"),
]


@pytest.mark.parametrize(("base", "spoil", "message"), REFUSED)
def test_what_would_fail_later_is_refused_at_the_door(
    base: Tree, spoil: Callable[[Tree], object], message: str, tmp_path: Path
) -> None:
    spoil(tree := copy.deepcopy(base))
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    with pytest.raises(Refusal, match=message) as caught:
        load_space(str(file))
    assert str(caught.value).startswith(f"{file}: ")


def test_every_space_is_found_by_name_says_what_it_is_about_and_passes_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A space beside the user hides one of the checkout."""
    monkeypatch.chdir(tmp_path)
    names = space_names()
    assert {"demo", "speech", "tvae-picture", "tvae-sound"} <= names.keys()
    for name, about in names.items():
        assert load_space(name).about == about != ""
    (tmp_path / "tune_spaces").mkdir()
    mine = {**SPEECH, "metrics": {"val_bound": "max"}, "axes": SPEECH["axes"][1:2]}
    (tmp_path / "tune_spaces" / "speech.yaml").write_text(yaml.safe_dump(mine | {"about": "mine"}))
    assert load_space("speech").about == "mine" == space_names()["speech"]
    file = tmp_path / "tune_spaces" / "empty.yaml"
    for content in ("", yaml.safe_dump([1])):
        file.write_text(content)
        for read in (lambda: load_space(str(file)), space_names):
            with pytest.raises(Refusal, match=r"holds no mapping; fields about, base, .* expected"):
                read()


@pytest.mark.parametrize("recipe", ["speech-vae", "mnist-vae", "house-50"])
def test_every_figure_that_can_rank_trials_has_a_group(recipe: str) -> None:
    assert all(map(group_of, ranking_figures(load(recipe))))
