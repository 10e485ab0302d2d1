"""Every setting is explained, and the page of settings is up to date."""

import re
from pathlib import Path

import pytest

from distvae.cli.reference import settings as print_settings
from distvae.config import from_dict, to_dict
from distvae.config.schema import FAMILIES, field_types, settings
from distvae.files.refusal import Refusal
from docs.site.settings_page import page


def test_every_field_of_every_kind_is_explained_once() -> None:
    explained = list(settings())
    for section, families in FAMILIES.items():
        for kind, config in families.items():
            for name in field_types(config):
                key = f"{section}.{name}"
                (found,) = (
                    each
                    for each in explained
                    if each.key == key and (kind in each.kinds or len(families) == 1)
                )
                assert (found.meaning[-1:], bool(found.values)) == (".", True), key
    tree = to_dict(from_dict({}))
    for each in explained:
        section, _, name = each.key.partition(".")
        assert name != "kind" or each.default == tree[section]["kind"]


def test_the_page_is_current() -> None:
    """`python -m docs.site.settings_page` writes it."""
    written = Path(__file__).parents[2] / "docs" / "settings.md"
    assert written.read_text() == page()


def test_a_key_a_section_a_recipe_or_everything_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    print_settings("model.alpha")
    both = capsys.readouterr().out
    assert both.count("model.alpha  (model: ") == 2
    assert "at least 1e-06 and at most 0.999999; default 0.5" in both
    print_settings("train")
    section = capsys.readouterr().out
    assert section.count("train.epochs") == 1
    assert "model." not in section.replace("model.net", "")
    print_settings(None, everything=True)
    assert both in capsys.readouterr().out
    (tmp_path / "own.yaml").write_text("train: {epocs: 3}\n")
    with pytest.raises(Refusal, match=r"own\.yaml.*epocs"):
        print_settings(str(tmp_path / "own.yaml"))
    print_settings("mnist-vsc")
    of_recipe = capsys.readouterr().out
    assert of_recipe.count("\n    ") >= 2 * 12
    assert len(re.findall(r"^\w+\.\w+=", of_recipe, re.MULTILINE)) == 12
    assert "model.alpha=0.5\n" in of_recipe
    assert of_recipe.endswith("more: distvae settings mnist-vsc --all\n")
    with pytest.raises(Refusal, match=r"model\.latnet: no such .*; did you mean 'model.latent'"):
        print_settings("model.latnet")
