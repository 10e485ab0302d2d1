"""The examples in the documentation work."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup, TyperOption

from distvae.cli import app
from distvae.tune.validation import load_space
from tests.laws.test_imports import LAYERS

DOCS = Path(__file__).parents[1] / "docs"
get_command = cache(typer.main.get_command)


def programs_of(page: str) -> dict[str, str]:
    """The programs of a page, by the names it says to save them under, tests of them included."""
    found: dict[str, str] = {}
    text = (DOCS / page).read_text()
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        if name := re.search(r"Save it as\s+`(\w+)\.py`", section):
            found[f"{name[1]}.py"], found[f"test_{name[1]}.py"] = blocks
    return found


def run_in(folder: Path, *words: str) -> str:
    """Run Python in a folder with the programs of the guide and the laws that they import."""
    settings = {"DISTVAE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment = {k: v for k, v in os.environ.items() if k != "DISTVAE_DATA"} | settings
    for name, code in programs_of("extending.md").items():
        (folder / name).write_text(code)
    for laws in (ROOT / "tests" / "laws").glob("*_laws.py"):
        shutil.copy(laws, folder)
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_model_and_the_estep_of_the_guide_train_and_keep_the_laws(tmp_path: Path) -> None:
    output = {name: run_in(tmp_path, f"{name}.py") for name in ("laplace", "flips")}
    assert re.search(r"\(\d+, 16\)", output["laplace"])
    for name, epochs in ("laplace", 3), ("flips", 4):
        bounds = [float(found) for found in re.findall(r"epoch \d+: (-?[\d.]+)", output[name])]
        assert (len(bounds), bounds[-1] > bounds[0]) == (epochs, True)
    run_in(tmp_path, "-m", "pytest", "-q", "test_laplace.py", "test_flips.py")


@pytest.mark.slow
def test_the_blocks_of_the_page_on_python_run_one_after_the_other(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 7
    (tmp_path / "page.py").write_text("\n".join(blocks))
    output = run_in(tmp_path, "page.py")
    assert re.search(r"\{'vae__latent': (4|16)\}", output)
    assert re.search(r"\(3, 8\)", output)


def test_the_space_of_the_guide_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "sweeps.md").read_text(), re.DOTALL)
    (tmp_path / "guide.yaml").write_text(text)
    space = load_space(str(tmp_path / "guide.yaml"))
    assert (space.search, space.trials, space.seeds) == ("nsga2", 60, 2)
    assert space.base.train.epochs == 30


ROOT = DOCS.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "api").glob("*.md")),
    *sorted((DOCS / "images").glob("*.md")),
    *sorted((DOCS / "log").glob("*.md")),
    *sorted((DOCS / "results").rglob("*.md")),
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
LINK = re.compile(r"\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
MODULE = re.compile(r"`((?:distvae|tests|cluster|tune_spaces)/[\w/.-]*)")
SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found]
    return {heading.replace(" ", "-") for heading in words}


@pytest.mark.parametrize("name", NAMES)
def test_links_anchors_and_named_files_are_there(name: str) -> None:
    page = ROOT / name
    for groups in LINK.findall(page.read_text()):
        link = groups[0] or groups[1]
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name}: {link}"
    for found in MODULE.findall(page.read_text()) if "/log/" not in name else ():
        assert "*" in found or (ROOT / found.rstrip(".")).exists(), f"{name}: {found}"


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each `distvae` command in the shell blocks of a page."""
    for block in SHELL.findall(page.read_text()):
        for line in block.splitlines():
            if line.startswith("distvae "):
                yield shlex.split(line, comments=True)[1:]


def test_help_shows_22_commands_with_an_example_each_and_120_options() -> None:
    top, options = get_command(app), 0
    assert isinstance(top, TyperGroup)
    shown = {name: command for name, command in top.commands.items() if not command.hidden}
    assert len(shown) <= 22
    for name, command in shown.items():
        parts = command.commands.items() if isinstance(command, TyperGroup) else [(name, command)]
        for _, part in parts:
            assert part.epilog, name
            are_known(shlex.split(part.epilog.partition(": distvae ")[2]), part.epilog)
            for each in part.params:
                options += isinstance(each, TyperOption) and not each.hidden
    assert options <= 120


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_options_that_pages_show_exist(name: str) -> None:
    for words in commands(ROOT / name):
        are_known(words, name)


def are_known(words: list[str], name: str) -> None:
    """Assert that a command and its options exist."""
    command = get_command(app)
    while isinstance(command, TyperGroup):
        assert words[0] in command.commands, f"{name}: distvae {words[0]}"
        command = command.commands[words.pop(0)]
    known: set[str] = set()
    for parameter in command.params:
        known.update(parameter.opts, parameter.secondary_opts)
    for word in words:
        option = word.partition("=")[0]
        assert not option.startswith("-") or option in known, f"{name}: {' '.join(words)}"


def test_every_cell_of_the_comparison_links_to_what_shows_it() -> None:
    text = (DOCS / "comparison.md").read_text()
    sources = dict(re.findall(r"^\[([\w-]+)\]: (https://\S+)$", text, re.MULTILINE))
    lines = [line for line in text.splitlines() if line.startswith("| **")]
    assert lines
    used: set[str] = set()
    for line in lines:
        row, own, *peers = line.strip("| ").split(" | ")
        local = [link for link, _ in LINK.findall(own) if not link.startswith("http")]
        assert local, row
        assert len(peers) == 4, row
        for cell in peers:
            named = set(re.findall(r"\]\[([\w-]+)\]", cell))
            assert named, f"{row}: {cell}"
            used |= named
    assert used == set(sources)


def test_the_rooms_of_the_design_are_those_of_the_import_law() -> None:
    text = (DOCS / "design.md").read_text().partition("\n## Subpackages\n")[2].partition("\n## ")[0]
    layers = []
    for line in text.splitlines():
        if line.startswith("| `"):
            names = re.findall(r"`([\w.]+)/?`", line.split("|")[1])
            layers.append(tuple(name.removesuffix(".py") for name in names))
    assert layers == [layer for layer in LAYERS if layer != ("__main__",)]


def test_citation_and_changelog_have_this_version_and_the_papers_of_the_models() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "distvae contributors"}]
    assert (citation["title"], citation["version"]) == (project["name"], project["version"])
    assert citation["license"] == project["license"]
    for key in ("message", "type", "date-released"):
        assert citation[key], key
    for paper in citation["references"]:
        assert {"type", "title", "authors", "year", "url"} <= set(paper), paper["title"]
    readme = (ROOT / "README.md").read_text()
    assert all(paper["url"] in readme for paper in citation["references"])
    heading = f"## {project['version']} - {citation['date-released']}"
    assert heading in (ROOT / "CHANGELOG.md").read_text().splitlines()
