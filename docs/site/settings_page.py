"""Write docs/settings.md: `python -m docs.site.settings_page`."""

import re
from itertools import groupby
from pathlib import Path

from distvae.config.schema import settings

PAGE = Path(__file__).parents[1] / "settings.md"
BEGIN = """# Settings

Every setting is a dotted key that follows the recipe: `distvae train speech-sdm model.latent=64`.
`distvae settings` prints this page, `distvae settings model` a section and `distvae settings
model.latent` a key. `distvae recipes NAME` prints the values of a recipe. The column *kinds* names
the kinds that have a key (`vae`, `tvae`, ...). A key that differs between kinds is listed again.
"""
TITLES = {
    "data": "data: what is read",
    "model": "model: the prior, the decoder and the likelihood",
    "estep": "estep: how posteriors are found",
    "train": "train: optimisation and where it runs",
    "eval": "eval: what is measured",
}


def page() -> str:
    """Return the page."""
    parts = [BEGIN]
    for section, found in groupby(settings(), key=lambda each: each.key.partition(".")[0]):
        known = list(found)
        columns = ["key", "values (default)", "meaning"]
        if any(each.kinds for each in known):
            columns.insert(2, "kinds")
        parts.append(f"\n## {TITLES[section]}\n\n{_row(columns)}{_row(['---'] * len(columns))}")
        for each in known:
            values = shorter(each.values) + (f" (`{each.default}`)" if each.default else "")
            cells = {
                "key": f"`{each.key}`",
                "values (default)": values,
                "kinds": ", ".join(each.kinds),
                "meaning": each.meaning,
            }
            parts.append(_row([cells[column] for column in columns]))
    return "".join(parts)


def shorter(values: str) -> str:
    """Return the possible values of a setting with signs instead of words."""
    values = re.sub(r", at least (\S+) and at most (\S+)\b", r", \1 to \2", values)
    values = values.replace(", at least", " >=").replace(", above", " >")
    return values.replace("a list: a ", "list: ").removeprefix("a ")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
