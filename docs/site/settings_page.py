"""Write docs/settings.md: `python -m docs.site.settings_page`."""

from itertools import groupby
from pathlib import Path

from distvae.config.explanations import Setting, settings

PAGE = Path(__file__).parents[1] / "settings.md"
BEGIN = """# Settings

Every setting is a dotted key that follows the recipe: `distvae train speech-sdm model.latent=64`.
`distvae settings` prints what is below, `distvae settings model` a section of it and `distvae
settings model.latent` a key. A recipe may have other values than these defaults; `distvae recipes
NAME` prints them.

A section may have several kinds, such as `vae` and `tvae`; the column *kinds* names those that have
a key. A key that means something else for another kind is listed again.
"""
TITLES = {
    "data": "data: what is read",
    "model": "model: the prior, the decoder and the likelihood",
    "estep": "estep: how posteriors are found",
    "train": "train: optimisation and where it runs",
    "eval": "eval: what is measured",
}

HEAD = "| key | values | kinds | meaning |\n|---|---|---|---|\n"


def page() -> str:
    """Return the page."""
    parts = [BEGIN]
    for section, found in groupby(settings(), key=lambda each: each.key.partition(".")[0]):
        parts.append(f"\n## {TITLES[section]}\n\n{HEAD}")
        parts += map(_row, found)
    return "".join(parts)


def _row(setting: Setting) -> str:
    default = f"; default `{setting.default}`" if setting.default else ""
    kinds = ", ".join(setting.kinds)
    cells = (f"`{setting.key}`", setting.values + default, kinds, setting.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
