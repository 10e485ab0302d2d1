"""Any file is read or refused soon, by its name and in a short sentence."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config.recipes import load
from distvae.files.refusal import Refusal
from distvae.files.untrusted import (
    parse_json,
    parse_yaml,
    read_figures,
    read_json,
    read_yaml,
)
from tests.called import Called

DEEP = "[" * 1200 + "]" * 1200
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"a{k}: &a{k} {{<<: [*a{k - 1 or ''}, *a{k - 1 or ''}]}}\n" for k in range(1, 20)
)
MERGED = MERGED.replace("*a0", "*a")
HOSTILE = {
    "deep": (f"model: {DEEP}", "nested more than 50 deep"),
    "deep blocks": ("\n".join(" " * k + "a:" for k in range(200)), "nested more than 50 deep"),
    "hexadecimal": (f"train: {{epochs: 0x{'f' * 5000}}}", "a whole number of more than 300 digits"),
    "decimal": (f"train: {{epochs: {'9' * 5000}}}", "not YAML"),
    "bomb": (BOMB, "more than 20,000 values"),
    "merged": (MERGED, "more than 20,000 values"),
    "itself": ("a: &a [*a]", "nested more than 50 deep"),
    "many": (f"[{'1,' * 21_000}]", "more than 20,000 values"),
    "long": ("a: " + "x" * 2**19, "bytes; at most 262,144 of YAML expected"),
    "bytes": ("\x00", "not YAML"),
    "truth": ("a: !!bool perhaps", "not YAML"),
    "object": ("a: !!python/object/apply:os.system [true]", "not YAML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_by_name_in_a_line(tmp_path: Path, name: str) -> None:
    text, words = HOSTILE[name]
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    with pytest.raises(Refusal) as refusal:
        read_yaml(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert (len(message.splitlines()), len(message) < 500) == (1, True)


def test_hostile_yaml_and_values_of_a_command_line_are_refused_by_every_command(
    call: Called, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(BOMB)
    values = (DEEP, f"0x{'f' * 5000}", "&a [*a]", "!!int ''")
    for words, named in [
        (["train", str(path)], f"{path}: "),
        (["tune", str(path)], f"{path}: "),
        *((["train", "bars", f"train.epochs={value}"], "train.epochs") for value in values),
    ]:
        code, out, err = call(*words)
        assert (code, out, named in err) == (2, "", True)
        assert (len(err.splitlines()), len(err) < 500) == (1, True)


@pytest.mark.parametrize("read", [read_yaml, read_json, lambda path: load(str(path))])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name, kind in {
        "pipe": "a named pipe",
        "folder": "a folder",
        "zero": "a device",
        "none": "no such file",
    }.items():
        with pytest.raises(Refusal, match=rf"{name}\.yaml: {kind}; .* expected"):
            read(tmp_path / f"{name}.yaml")


@pytest.mark.parametrize("figures", ['{"psnr": [1]}', '{"psnr": "1"}', "{"])
def test_figures_that_are_no_numbers_are_refused_by_name(tmp_path: Path, figures: str) -> None:
    file = tmp_path / "summary.json"
    file.write_text('{"psnr": 1, "ssim": 0.5, "pesq_wb": null}')
    assert read_figures(file) == {"psnr": 1, "ssim": 0.5, "pesq_wb": None}
    file.write_text(figures)
    with pytest.raises(Refusal, match=r"summary\.json: altered or damaged"):
        read_figures(file)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.text(max_size=9),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4)
    ),
    max_leaves=30,
)


@settings(max_examples=25)
@given(VALUES, st.booleans())
def test_whatever_was_written_is_read_as_pyyaml_reads_it(value: object, flow: bool) -> None:
    text = yaml.safe_dump([value, value], default_flow_style=flow)
    assert parse_yaml(text, "x") == yaml.safe_load(text) == [value, value]


@given(st.text(st.sampled_from("ab:1-[]{}&*!<> '\"\n,?|%@0x.~#\t"), max_size=40))
def test_any_text_is_yaml_or_refused(text: str) -> None:
    with suppress(Refusal):
        parse_yaml(text, "x")


@pytest.mark.parametrize(
    "content",
    ["", "[]", DEEP, '{"a": ' * 500 + "1" + "}" * 500, '{"a":' + "9" * 5000 + "}", b"\xff\xfe"],
)
def test_json_that_is_no_object_or_deep_is_refused(content: str | bytes) -> None:
    with pytest.raises(Refusal, match="x: altered or damaged: not the JSON"):
        parse_json(content, "x")


def test_a_folder_named_as_a_file_of_a_run_is_refused(call: Called, tmp_path: Path) -> None:
    words = ["train", "bars", "--out", str(tmp_path / "run"), "--no-track", "--no-evaluate"]
    words += ["--quiet", "train.epochs=1", "data.rows=20"]
    assert call(*words)[0] == 0
    for name in ("run.json", "config.yaml", "best.json", "last.json", "epochs.jsonl"):
        path = tmp_path / "run" / name
        content = path.read_bytes()
        path.unlink()
        path.mkdir()
        code, _, err = call(*words, "--resume")
        assert (code, len(err.splitlines())) == (2, 1)
        assert f"{path}: a folder; a file, or none, expected" in err
        path.rmdir()
        path.write_bytes(content)
