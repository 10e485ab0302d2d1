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
from hypothesis import given
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
        axes.append(
            {"key": "model.dictionary", "choice": dictionaries, "when": {"model.kind": "sdm"}}
        )
        full = [name for name in dictionaries if name != "identity"]
        if draw(st.booleans()) and full:
            axes.append(
                {
                    "key": "model.atoms",
                    "int": [8, 64],
                    "log": True,
                    "when": {"model.dictionary": full},
                }
            )
    axes.insert(draw(st.integers(0, len(axes))), {"key": "model.latent", "choice": [4, 8]})
    return read_tree({"base": "speech-vae", "metrics": {"hoyer": "max"}, "axes": axes})


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


def test_the_branches_of_the_speech_space_are_the_models_of_the_table() -> None:
    keys = ("model.kind", "model.dictionary")
    found = [tuple(branch.get(key) for key in keys) for branch in read_tree(SPEECH).branches()]
    assert found == [
        ("vae", None),
        ("vsc", None),
        ("sdm", "identity"),
        ("sdm", "dct"),
        ("sdm", "learned"),
    ]


def test_an_axis_may_come_twice_under_conditions_that_exclude_each_other() -> None:
    tree = copy.deepcopy(SPEECH)
    tree["axes"].append(
        {
            "key": "train.rate",
            "float": [2e-3, 4e-3],
            "log": True,
            "when": {"model.kind": ["vae", "sdm"]},
        }
    )
    rates = {
        values["model.kind"]: values["train.rate"] for values in suggestions(read_tree(tree), 30)
    }
    assert rates["vsc"] == 1e-3
    assert all(2e-3 <= rates[kind] <= 4e-3 for kind in ("vae", "sdm"))


def test_a_pinned_key_no_longer_varies_and_conditions_see_its_value() -> None:
    space = read_tree(SPEECH).pinned({"model.kind": "vsc", "model.latent": 8})
    for values in suggestions(space, 5):
        assert values.keys() == {"model.alpha", "train.rate"}
        assert (space.config(values).model.kind, space.config(values).model.latent) == ("vsc", 8)


def change(axis: int, **fields: Any) -> Callable[[Tree], None]:
    return lambda tree: tree["axes"][axis].update(fields)


def drop_when(axis: int) -> Callable[[Tree], None]:
    return lambda tree: tree["axes"][axis].pop("when")


def put(name: str, value: Any) -> Callable[[Tree], None]:
    return lambda tree: tree.update({name: value})


def append(**axis: Any) -> Callable[[Tree], None]:
    return lambda tree: tree["axes"].append(axis)


BAD: dict[str, tuple[Callable[[Tree], None], str]] = {
    "misspelt field": (
        put("metric", {}),
        r"^metric: no such field of a space; did you mean 'metrics'",
    ),
    "misspelt field of an axis": (
        change(1, chioce=[1]),
        r"axes\[1\]\.chioce.*did you mean 'choice'",
    ),
    "misspelt figure": (
        put("metrics", {"pesq_bw": "max"}),
        r"metrics\.pesq_bw: .*did you mean 'pesq_wb'",
    ),
    "misspelt direction": (
        put("metrics", {"pesq_wb": "maximum"}),
        r"metrics\.pesq_wb: no choice 'maximum'.*'max'",
    ),
    "no metrics": (put("metrics", {}), r"^metrics: at least one"),
    "no base": (lambda tree: tree.pop("base"), r"base: missing; a recipe"),
    "axes that are a number": (put("axes", 3), r"axes: a list of at least one axis expected"),
    "no trials": (put("trials", 0), r"^trials: 0 is out of range"),
    "unknown base": (put("base", "speech-vea"), r"did you mean 'speech-vae'"),
    "value out of range": (
        change(1, choice=[16, 0]),
        r"axes\[1\].*model\.latent: 0 is out of range",
    ),
    "empty choice": (change(1, choice=[]), r"choice: \[\]; a list of at least one"),
    "value twice": (change(1, choice=[16, 16]), r"16 is listed twice"),
    "two kinds of span": (
        change(1, int=[1, 2]),
        r"one of choice, int and float expected; choice and int given",
    ),
    "falling interval": (change(2, float=[0.9, 0.1]), r"two rising numbers expected"),
    "logarithm of zero": (
        append(key="model.beta", float=[0, 1], log=True),
        r"two rising numbers above 0 expected",
    ),
    "missing condition": (
        drop_when(2),
        r"model\.kind 'vae' has no alpha; add when: \{model\.kind: \[vsc, gumbel\]\}",
    ),
    "unknown condition": (
        change(2, when={"model.knid": "vsc"}),
        r"model\.knid: no such key; did you mean 'model\.kind'",
    ),
    "condition never chosen": (
        change(2, when={"model.kind": "vcs"}),
        r"'vcs' is never chosen; did you mean 'vsc'",
    ),
    "later condition": (
        change(1, when={"model.dictionary": "dct"}),
        r"does not vary before this axis",
    ),
    "condition on an interval": (
        append(key="model.beta", choice=[1], when={"model.alpha": 0.5}),
        r"only a choice can",
    ),
    "conditions at odds": (
        change(5, when={"model.dictionary": "dct", "model.kind": "vsc"}),
        r"axes\[5\] \(model\.atoms\)\.when: its conditions never hold together",
    ),
    "varies twice": (append(key="model.latent", choice=[8]), r"varies twice for"),
    "invalid together": (
        change(5, when={"model.dictionary": ["identity", "dct"]}),
        r"model\.atoms: .*identity",
    ),
    "fixed and varied": (
        put("fixed", {"model.latent": 8}),
        r"fixed\.model\.latent: is also an axis",
    ),
    "bound over priors": (
        lambda tree: tree.update(
            base="mnist-vsc",
            fixed={},
            metrics={"val_bound": "max"},
            axes=[{"key": "model.prior", "choice": ["fixed", "pseudo"]}],
        ),
        r"bounds do not compare where model\.prior varies",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_would_fail_later_is_refused_at_the_door(name: str, tmp_path: Path) -> None:
    spoil, message = BAD[name]
    tree = copy.deepcopy(SPEECH)
    spoil(tree)
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(Refusal, match=message.removeprefix("^")) as caught:
        load_space(str(file))
    assert str(caught.value).startswith(str(file))


def test_within_one_model_trials_may_be_ranked_by_the_bound() -> None:
    axes = [{"key": "model.latent", "choice": [8, 16]}]
    assert read_tree(
        {"base": "speech-vae", "metrics": {"val_bound": "max"}, "axes": axes}
    ).metrics == {"val_bound": "max"}


def test_every_space_of_the_checkout_is_found_by_name_says_what_it_is_about_and_passes_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = space_names()
    assert {"demo", "speech", "tvae-picture", "tvae-sound"} <= names.keys()
    for name, about in names.items():
        assert load_space(name).about == about != ""


def test_a_space_beside_the_user_hides_one_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tune_spaces").mkdir()
    (tmp_path / "tune_spaces" / "speech.yaml").write_text(
        yaml.safe_dump(SPEECH | {"about": "mine"})
    )
    monkeypatch.chdir(tmp_path)
    assert load_space("speech").about == "mine" == space_names()["speech"]


IMAGES: Tree = {
    "base": "mnist-vae",
    "fixed": {"eval.metrics": ["iw_bound", "probe_linear"]},
    "metrics": {"probe_linear": "max", "iw_bound": "max"},
    "axes": [{"key": "model.latent", "choice": [8, 16]}],
}


@pytest.mark.parametrize(
    ("changes", "expected_message"),
    [
        ({"fixed": {}}, r"metrics.probe_linear: not measured; eval.metrics: \[probe_linear\]"),
        (
            {"axes": [{"key": "model.kind", "choice": ["vae", "vsc"]}]},
            "metrics.iw_bound: bounds do not compare",
        ),
        ({"base": "bars"}, "eval.metrics: iw_bound needs an encoder"),
        (
            {"axes": [{"key": "eval.codes", "choice": ["mean", "gated"]}]},
            "eval.codes: 'gated' with model.kind 'vae'; mean expected",
        ),
    ],
)
def test_trials_that_lack_a_measure_are_refused(changes: Tree, expected_message: str) -> None:
    with pytest.raises(Refusal, match=expected_message):
        read_tree(IMAGES | changes)


SDM: Tree = {"base": "speech-sdm", "metrics": {"hoyer": "max"}}
LATENT: Tree = {"key": "model.latent", "choice": [16, 32]}
ATOMS: Tree = {"key": "model.atoms", "choice": [64, 128]}
DICTIONARY: Tree = {"key": "model.dictionary", "choice": ["dct", "identity"]}


def refusal(*axes: Tree, **fields: Any) -> str:
    """The words that a space is refused with."""
    with pytest.raises(Refusal) as told:
        validate_space(read_space("space", SDM | fields | {"axes": list(axes)}))
    return str(told.value)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_misspelt_value_is_told_of_its_own_axis(conditional: bool) -> None:
    misspelt = DICTIONARY | {"choice": ["dct", "lerned"]}
    axes = [LATENT, misspelt, *([ATOMS | {"when": {"model.dictionary": "dct"}}] * conditional)]
    assert refusal(*axes) == (
        "axes[1] (model.dictionary): model.dictionary: no choice 'lerned'; did you mean 'learned'?"
    )


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("modle.latent", "modle: no such section; did you mean 'model'"),
        ("model.latnet", "model.latnet: no such field of model.kind 'sdm'; did you mean 'latent'"),
    ],
)
def test_a_misspelt_key_is_told_of_its_own_axis(key: str, hint: str) -> None:
    message = refusal(DICTIONARY | {"choice": ["dct"]}, LATENT | {"key": key})
    assert message.startswith(f"axes[1] ({key}): {hint}")


def test_values_that_do_not_go_together_are_told_with_a_condition() -> None:
    message = refusal(DICTIONARY, ATOMS)
    assert message.startswith("axes[1] (model.atoms): model.atoms: 64 with the identity")
    assert "(for model.dictionary identity, model.atoms 64)" in message
    assert message.endswith("; when: {model.dictionary: dct} on this axis expected")
    assert "every trial" not in message


def test_a_condition_on_a_later_axis_is_told_with_the_order_that_it_needs() -> None:
    assert refusal(ATOMS, DICTIONARY).endswith(
        "; when: {model.dictionary: dct} on this axis, below that of model.dictionary, expected"
    )


def test_an_error_of_the_base_is_told_of_no_axis() -> None:
    fixed = {"eval.metrics": ["iw_bound"]}
    message = refusal(LATENT, base="bars", fixed=fixed, metrics={"iw_bound": "max"})
    assert message.startswith("base and fixed: eval.metrics: iw_bound needs an encoder")


def test_an_empty_file_is_told_what_a_space_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune_spaces").mkdir()
    file = tmp_path / "tune_spaces" / "empty.yaml"
    for content in ("", yaml.safe_dump([1])):
        file.write_text(content)
        for read in (lambda: load_space(str(file)), space_names):
            with pytest.raises(Refusal, match=r"holds no mapping; fields about, base, .* expected"):
                read()


@pytest.mark.parametrize("recipe", ["speech-vae", "mnist-vae", "house-50"])
def test_every_figure_that_can_rank_trials_has_a_group(recipe: str) -> None:
    assert all(map(group_of, ranking_figures(load(recipe))))
