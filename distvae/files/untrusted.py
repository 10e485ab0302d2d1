"""Plain values, and untrusted or damaged files that hold them.

Reading is bounded: no function here waits for a named pipe or expands aliases without end. Any
exception of a decoder becomes a `Refusal` that names the file.
"""

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from distvae.files.refusal import CONTROL, Refusal, shortened, shown

if TYPE_CHECKING:
    from yaml.nodes import Node

Plain: TypeAlias = "str | int | float | bool | Sequence[Plain] | Mapping[str, Plain] | None"
"""A value that YAML and JSON can write: a scalar, or a list or mapping of such values."""
Tree: TypeAlias = dict[str, Any]
"""An object read from YAML or JSON, whose values are checked where they are used."""


def finite(value: object) -> object:
    """Return a value with null in place of the numbers that JSON lacks: NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


MAX_BYTES = 2**18
"""The largest size of a YAML file in bytes. The longest recipe has a few thousand bytes."""
MAX_DEPTH = 50
"""The deepest nesting of YAML and JSON."""
TOO_DEEP = f"{{}}: nested more than {MAX_DEPTH} deep; flat values, lists and mappings expected"
MAX_NODES = 20_000
"""The largest number of values, lists and mappings in YAML. Aliased values count each time."""
MAX_NUMBER = 2**1024
"""The bound of whole numbers. No float is larger, so no computation could use a larger number."""
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
"""Kinds of directory entries that are not regular files."""
SNAPSHOTS, BLOBS = "snapshots", "blobs"
"""Folders of the Hugging Face hub's cache: links for each revision, and the linked files."""
WRITTEN_FILE = "the file that was written there"
YAML_FILE = "a readable YAML file"


def path_inside(folder: Path, name: object) -> Path:
    """Return the path in a folder for a file name that was read from the folder.

    Refuse a name that leads out of the folder, by its parts or through a link.
    """
    path = folder / check_relative(name, str(folder))
    _refuse_link_out(folder, path)
    return path


def check_relative(name: object, named_in: str) -> str:
    """Return the name of a file below a folder. Refuse absolute names and parent folders."""
    if isinstance(name, str) and name and not CONTROL.search(name):
        path = PurePosixPath(name)
        if path.parts and not path.is_absolute() and ".." not in path.parts and is_text(name):
            return name
    raise Refusal(f"{named_in}: {shown(name)} is no name of a file in this folder; one expected")


def check_plain(name: object, named_in: str) -> str:
    """Return the name of a file directly in a folder. Refuse every other name."""
    if "/" in (checked := check_relative(name, named_in)):
        raise Refusal(f"{named_in}: {shown(name)} names a file elsewhere; a plain name expected")
    return checked


def is_text(name: str) -> bool:
    """Return whether a name is in UTF-8, without NUL."""
    with suppress(UnicodeEncodeError):
        return "\0" not in name and bool(name.encode())
    return False


def refuse_strange_entries(folder: Path) -> None:
    """Refuse a folder with a link out of it, or with an entry that is neither file nor folder.

    The folder may be untrusted. This check keeps later reads and writes below the folder.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            with suppress(FileNotFoundError):  # another process may be writing here
                kind = stat.S_IFMT(path.lstat().st_mode)
                if kind == stat.S_IFLNK:
                    _refuse_link_out(folder, path)
                elif kind not in (stat.S_IFREG, stat.S_IFDIR):
                    raise Refusal(f"{path}: {KINDS.get(kind, 'no regular file')}; a file expected")


def _refuse_link_out(folder: Path, path: Path) -> None:
    """Refuse a link out of the folder, unless it leads to the files of the hub's cache."""
    try:
        root, found = folder.resolve(), path.resolve()
    except (RuntimeError, OSError) as error:  # circular links
        raise Refusal(f"{path}: a link to itself; a file expected") from error
    caches = [above.parent / BLOBS for above in root.parents if above.name == SNAPSHOTS]
    if not any(found.is_relative_to(place) for place in (root, *caches)):
        raise Refusal(f"{path}: a link out of {folder}; a file in it expected")


def require_regular_file(path: Path, expected: str) -> None:
    """Raise `Refusal` unless a path is a regular file, because opening a pipe may never return."""
    with decoding(path, expected):
        kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise Refusal(f"{path}: {KINDS.get(kind, 'no regular file')}; {expected} expected")


@contextmanager
def decoding(path: Path, expected: str) -> Iterator[None]:
    """Turn any exception of a decoder into a `Refusal` that names the file."""
    try:
        yield
    except Refusal:
        raise
    except FileNotFoundError as error:
        raise Refusal(f"{path}: no such file; {expected} expected") from error
    except Exception as error:
        reason = error_text(error)
        raise Refusal(f"{path}: cannot be read ({reason}); {expected} expected") from error


def error_text(error: Exception) -> str:
    """Return the message of an exception on one line, or the name of its type."""
    message = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return one_line(str(message), 160).rstrip(".") or type(error).__name__


def one_line(text: str, length: int = 60) -> str:
    """Return a text as one printable line, without its middle if it is longer than `length`."""
    words = " ".join(text.split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in words)
    return shortened(printable, length)


def read_yaml(path: Path) -> object:
    """Return the values in a YAML file."""
    require_regular_file(path, YAML_FILE)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Refusal(f"{path}: {size:,} bytes; at most {MAX_BYTES:,} of YAML expected")
    with decoding(path, YAML_FILE):
        content = path.read_bytes()
    return parse_yaml(content, str(path))


def parse_yaml(content: bytes | str, name: str) -> object:
    """Return the values in a YAML text. Refuse text with too many, too deep or too large values."""
    import yaml

    try:
        text = content.decode() if isinstance(content, bytes) else content
        loader = yaml.SafeLoader(text)
        _refuse_large(root := loader.get_single_node(), name)
        tree = None if root is None else loader.construct_document(root)
    except Refusal:
        raise
    except RecursionError as error:
        raise Refusal(TOO_DEEP.format(name)) from error
    # PyYAML raises any exception for damaged values, such as KeyError for `!!bool x`
    except Exception as error:
        raise Refusal(f"{name}: not YAML: {error_text(error)}") from error
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, int) and abs(value) >= MAX_NUMBER:
            raise Refusal(f"{name}: a whole number of more than 300 digits; a smaller one expected")
        waiting.extend(_children(value))
    return tree


def _refuse_large(root: "Node | None", name: str) -> None:
    """Raise `Refusal` if YAML is nested too deep or too large once its aliases are expanded, before
    any value is built.
    """
    waiting, count = [(root, 1)], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise Refusal(TOO_DEEP.format(name))
        if count > MAX_NODES:
            raise Refusal(
                f"{name}: more than {MAX_NODES:,} values, its aliases followed; fewer expected"
            )
        if node is not None and not isinstance(node.value, str):  # a list of nodes, or of pairs
            parts = (each if isinstance(each, tuple) else (each,) for each in node.value)
            waiting.extend((part, depth + 1) for pair in parts for part in pair)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list | tuple | set) else ()


def read_json(path: Path) -> Tree:
    """Return the object in a JSON file that this program wrote. Refuse a damaged file."""
    require_regular_file(path, WRITTEN_FILE)
    with decoding(path, WRITTEN_FILE):
        content = path.read_bytes()
    return parse_json(content, str(path))


def read_figures(path: Path) -> dict[str, float | None]:
    """Return numbers by name from a JSON file that this program wrote. Refuse other values."""
    figures = read_json(path)
    for name, value in figures.items():
        if value is not None and not isinstance(value, int | float):
            raise Refusal(f"{path}: altered or damaged: '{one_line(name)}' is no number")
    return figures


def parse_json(content: bytes | str, name: str) -> Tree:
    """Return a JSON object that this program wrote. `name` names damaged content in the refusal."""
    message = f"{name}: altered or damaged: not the JSON that was written there"
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refusal(message) from error
    if not isinstance(tree, dict) or _is_too_deep(tree):
        raise Refusal(message)
    return {printable(key): printable(value) for key, value in tree.items()}


def printable(value: Any) -> Any:
    """Return a value whose texts contain no terminal control characters except line breaks."""
    if isinstance(value, str):
        return "\n".join(CONTROL.sub(" ", line) for line in value.split("\n"))
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


def _is_too_deep(tree: object) -> bool:
    """Return whether a value is nested deeper than any value that this program writes."""
    level: list[object] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
    return bool(level)


SPECIAL = re.compile(r"([\\`*\[\]<>&|~:]|\b_|_\b)")
"""Characters that begin markup within a line, or a link from a bare address."""
UNESCAPED = re.compile(r"(?<!\\)\|")
"""A bar that would begin another column."""
MOST = 500
"""The largest number of characters in untrusted text."""


def plain_text(text: object) -> str:
    """Return untrusted text as Markdown that shows it literally, on one line."""
    return SPECIAL.sub(r"\\\1", one_line(str(text), MOST))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table. A cell may hold Markdown, but no other column."""
    rule = ["---"] * len(head)
    escaped = ([UNESCAPED.sub(r"\|", cell) for cell in cells] for cells in (head, rule, *rows))
    return [f"| {' | '.join(cells)} |" for cells in escaped]
