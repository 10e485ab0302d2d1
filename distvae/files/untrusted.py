"""Read files that anyone may have written, or that were damaged since: bounded, and refused in a
sentence.

Nothing here waits for a named pipe, follows an alias without end, or lets the exception of a
decoder through.
"""

import json
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distvae.files.refusal import Refusal, shortened

if TYPE_CHECKING:
    from yaml.events import Event

LARGEST = 2**18
"""Bytes of YAML; the longest recipe or search space has a few thousand."""
DEEPEST = 50
"""Levels of nesting, in YAML and in JSON."""
MOST_NODES = 20_000
"""Values, lists and mappings in YAML, those that aliases repeat counted each time."""
LONGEST = 2**1024
"""Whole numbers are smaller: what is larger is no number that can be computed with."""
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
"""What may have the name of a file and is none."""


def require_regular_file(path: Path, expected: str) -> None:
    """Refuse what is not there, or is no regular file: to open a pipe or a device may take for
    ever.
    """
    with decoding(path, expected):
        kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise Refusal(f"{path}: {KINDS.get(kind, 'no regular file')}; {expected} expected")


@contextmanager
def decoding(path: Path, expected: str) -> Iterator[None]:
    """Name the file that cannot be decoded, whatever its decoder raises: of damaged content that is
    anything.
    """
    try:
        yield
    except Refusal:
        raise
    except FileNotFoundError as error:
        raise Refusal(f"{path}: no such file; {expected} expected") from error
    except Exception as error:
        raise Refusal(
            f"{path}: cannot be read ({error_text(error)}); {expected} expected"
        ) from error


def error_text(error: Exception) -> str:
    """Return in a few words why something failed."""
    told = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return one_line(str(told), 160).rstrip(".") or type(error).__name__


def one_line(text: str, most: int = 60) -> str:
    """Return a text on one line that a terminal shows as it is, its middle left out where it is
    long.
    """
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return shortened(line, most)


def read_yaml(path: Path) -> object:
    """Return the values in a YAML file."""
    require_regular_file(path, "a readable YAML file")
    if (size := path.stat().st_size) > LARGEST:
        raise Refusal(f"{path}: {size:,} bytes; at most {LARGEST:,} of YAML expected")
    with decoding(path, "a readable YAML file"):
        content = path.read_bytes()
    return parse_yaml(content, str(path))


def parse_yaml(content: bytes | str, name: str) -> object:
    """Return the values that YAML stands for; what has too many, too deep or too large ones is
    refused.
    """
    import yaml

    try:
        text = content.decode() if isinstance(content, bytes) else content
        _refuse_unbounded(yaml.parse(text, Loader=yaml.SafeLoader), name)
        tree = yaml.safe_load(text)
    except Refusal:
        raise
    except (
        Exception
    ) as error:  # PyYAML answers damaged values with any exception, such as KeyError for `!!bool x`
        raise Refusal(f"{name}: not YAML: {error_text(error)}") from error
    _refuse_long_numbers(tree, name)
    return tree


@dataclass
class _Node:
    """What is known of a YAML node while its events go by."""

    anchor: str | None = None
    size: int = 1
    height: int = 1

    def add(self, child: "_Node") -> None:
        self.size += child.size
        self.height = max(self.height, 1 + child.height)


def _refuse_unbounded(events: "Iterable[Event]", name: str) -> None:
    """Refuse YAML that is nested too deep or is too much once its aliases are followed, before
    anything is built.
    """
    from yaml.events import (
        AliasEvent,
        CollectionEndEvent,
        CollectionStartEvent,
        NodeEvent,
        ScalarEvent,
    )

    opened, known = [_Node()], dict[str, _Node]()
    for event in events:
        if isinstance(event, CollectionStartEvent):
            opened.append(_Node(event.anchor))
        elif isinstance(event, CollectionEndEvent | NodeEvent):
            if isinstance(event, AliasEvent) and event.anchor in {node.anchor for node in opened}:
                raise Refusal(
                    f"{name}: *{one_line(str(event.anchor))} stands for what it is itself a part of"
                )
            node = opened.pop() if isinstance(event, CollectionEndEvent) else _Node(event.anchor)
            node = known.get(node.anchor or "", node) if isinstance(event, AliasEvent) else node
            if isinstance(event, CollectionEndEvent | ScalarEvent) and node.anchor:
                known[node.anchor] = node
            opened[-1].add(node)
        _refuse_extent(opened, name)


def _refuse_extent(opened: list[_Node], name: str) -> None:
    depth = len(opened) - 2 + opened[-1].height
    if depth > DEEPEST:
        raise Refusal(
            f"{name}: nested more than {DEEPEST} deep; flat values, lists and mappings expected"
        )
    if sum(node.size for node in opened) > MOST_NODES:
        raise Refusal(
            f"{name}: more than {MOST_NODES:,} values, its aliases followed; fewer expected"
        )


def _refuse_long_numbers(tree: object, name: str) -> None:
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, int) and abs(value) >= LONGEST:
            raise Refusal(f"{name}: a whole number of more than 300 digits; a smaller one expected")
        waiting.extend(_children(value))


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list | tuple | set) else ()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file that this program wrote; one that is damaged is refused."""
    require_regular_file(path, "the file that was written there")
    with decoding(path, "the file that was written there"):
        content = path.read_bytes()
    return parse_json(content, str(path))


def parse_json(content: bytes | str, name: str) -> dict[str, Any]:
    """Return the JSON object that this program wrote, or refuse it by name."""
    told = f"{name}: altered or damaged: not the JSON that was written there"
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refusal(told) from error
    if not isinstance(tree, dict) or _is_deep(tree):
        raise Refusal(told)
    return tree


def _is_deep(tree: object) -> bool:
    """Tell whether something is nested deeper than anything that this program writes."""
    level: list[object] = [tree]
    for _ in range(DEEPEST):
        level = [child for value in level for child in _children(value)]
    return bool(level)
