"""`distvae settings`: what the settings mean."""

import textwrap

from distvae.config.explanations import Setting, settings
from distvae.config.registry import FAMILIES
from distvae.files.refusal import Refusal, nearest

WIDTH = 100
"""Columns of the text."""


def print_settings(key: str | None) -> None:
    """Print the settings with a key, those of a section, or all."""
    known = list(settings())
    found = [each for each in known if key is None or each.key == key or _is_of(each, key)]
    if not found:
        names = [*FAMILIES, *dict.fromkeys(each.key for each in known)]
        raise Refusal(f"{key}: no such setting or section; {nearest(str(key), names)}")
    for each in found:
        kinds = f"  ({each.key.partition('.')[0]}: {', '.join(each.kinds)})" if each.kinds else ""
        default = f"; default {each.default}" if each.default else ""
        print(f"{each.key}{kinds}")
        for text in (f"{each.values}{default}", each.meaning):
            print(textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    "))
        print()


def _is_of(setting: Setting, section: str) -> bool:
    return setting.key.startswith(f"{section}.")
