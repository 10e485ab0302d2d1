"""A value that is refused is told of its own axis, with the values that it does not go with."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from distvae.files.refusal import Refusal
from distvae.tune.space import read_space, space_names
from distvae.tune.validation import load_space, validate_space

Tree = dict[str, Any]
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


@pytest.mark.parametrize(("key", "name"), [("modle.latent", "modle"), ("model.latnet", "latnet")])
def test_a_misspelt_key_is_told_of_its_own_axis(key: str, name: str) -> None:
    message = refusal(DICTIONARY | {"choice": ["dct"]}, LATENT | {"key": key})
    assert message.startswith(f"axes[1] ({key}): ")
    assert name in message


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


def test_the_condition_that_is_told_makes_the_space_valid() -> None:
    tree = SDM | {"axes": [DICTIONARY, ATOMS | {"when": {"model.dictionary": "dct"}}]}
    validate_space(read_space("space", tree))


def test_a_value_that_is_never_valid_is_told_without_the_others() -> None:
    message = refusal(DICTIONARY | {"choice": ["dct", "learned"]}, LATENT | {"choice": [16, 0]})
    assert message.startswith("axes[1] (model.latent): model.latent: 0 is out of range")
    assert "for model" not in message
    assert "when" not in message


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
