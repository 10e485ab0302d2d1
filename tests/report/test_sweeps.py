"""The page of a sweep, however it ended: everything that its study says is on it, and nothing is
asked of others.
"""

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from distvae import report
from distvae.files.refusal import Refusal
from distvae.numerics.metrics import GLOSSARY
from distvae.report.reading import RunResults, Sweep, Trial
from distvae.report.sweeps import exhibits, needed, sampled_trials, shares, space, varied
from distvae.tasks.measures import MEASURES
from distvae.tasks.scores import WAVEFORM
from distvae.tune.folder import describe_sweep
from distvae.tune.results import MAX_TRIALS, Result, rank
from distvae.tune.space import Directions, Space, read_space, space_names
from distvae.tune.validation import load_space
from tests.report import folders
from tests.report.reader import Page, trials

SHOUT = "<script>alert(1)</script> | *bold* & [link](javascript:1)"
METRICS: Directions = {"squared_error": "min", "hoyer": "max"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


def read(folder: Path) -> Page:
    """The page of a folder."""
    return Page(report.write(folder).read_text())


def failed(number: int, values: dict[str, Any]) -> Result:
    return Result(number, values, "failed", cause=SHOUT)


def mixed(number: int, values: dict[str, Any]) -> Result:
    """Trials of every end; a setting and a cause that look like code."""
    if number == 3:
        return failed(number, values)
    if number == 5:
        return Result(number, values, "halted", 2, -9.5, {}, 3.0, "worse than others")
    return folders.judged(number, values | ({"model.kind": SHOUT} if number == 2 else {}))


def of_three_seeds(number: int, values: dict[str, Any]) -> Result:
    """Return a trial with the spread of seeds, and a metric whose name ends like a spread."""
    result = folders.judged(number, values)
    spread = {f"{name}_spread": 0.1 * result.figures[name] for name in METRICS}
    own = {"hoyer_std": 0.01, "iw_bound_row_std": 10.5 + number}
    return replace(result, figures=result.figures | spread | own)


@pytest.mark.parametrize(("seeds", "judge"), [(1, mixed), (3, of_three_seeds)])
def test_every_trial_is_in_the_table_with_its_figures_as_text_and_nothing_else(
    folder: Path, seeds: int, judge: Callable[[int, dict[str, Any]], Result]
) -> None:
    same = {"key": "train.batch", "choice": [8], "when": {"model.kind": "vsc"}}
    axes = [*folders.TREE["axes"], same]
    results = folders.sweep(folder, judge, seeds=seeds, axes=axes)
    by_number = {str(each.number): each for each in results}
    page = read(folder)
    shown = trials(page.tables)
    assert [row["trial"] for row in shown] == list(by_number)
    for row in shown:
        trial = by_number[row["trial"]]
        assert (row["\N{BLACK STAR}"] != "") == trial.unbeaten
        assert row.get("state", "finished") == trial.state
        assert row.get("cause", "") == trial.cause
        assert row["model"] == trial.values["model.kind"]
        assert float(row["latents"]) == trial.values["model.latent"]
        alpha = float(row["alpha"] or math.nan)
        wanted = trial.values.get("model.alpha", math.nan)
        assert alpha == pytest.approx(wanted, rel=6e-3, nan_ok=True)
        assert not {"hoyer_std", "batch size"} & row.keys()
        for name, value in trial.figures.items():
            if name != "hoyer_std" and (name != "images" or name in row):
                told = row[name.removesuffix("_spread")].split(" \N{PLUS-MINUS SIGN} ")
                is_spread = name.endswith("_spread")
                rel = 0.06 if is_spread else 6e-3
                assert float(told[is_spread]) == pytest.approx(value, rel=rel)
    assert "<script>alert" not in page.text
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1
    known = set(shown[0]) & GLOSSARY.keys()
    assert {*METRICS, "effective_atoms"} <= known
    assert dict(page.tables[-1]).items() >= {name: GLOSSARY[name] for name in known}.items()
    assert {GLOSSARY[name] for name in known} <= {head.get("title") for head in page.heads}


@pytest.mark.parametrize("count", [1, 2])
def test_the_best_trial_is_told_with_its_lead_if_there_is_another(folder: Path, count: int) -> None:
    folders.sweep(folder, trials=count, metrics={"hoyer": "max"})
    text = read(folder).text
    assert "best hoyer" in text
    assert ("from the next" in text) == (count > 1)


def test_nothing_is_asked_of_anybody(folder: Path) -> None:
    first, second = folders.sweep(folder, trials=2)
    for result in (first, second):
        folders.trained(folder / "trials" / str(result.number))
        folders.put_evaluation(folder / "trials" / str(result.number))
    page = read(folder)
    assert len([each for each in page.addresses if each.startswith("data:")]) == 7
    asked = re.compile(r"data:(image/(png|webp|svg\+xml)|audio/ogg);base64,|#")
    assert all(asked.match(each) for each in page.addresses)
    assert not re.search(r"@import|url\(|<link|https?:", page.text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for result in (first, second):
        assert f"#trial-{result.number}" in page.addresses
        assert f"trial-{result.number}" in ids


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    """An evaluated run with a picture and sounds."""
    folder = tmp_path_factory.mktemp("run")
    folders.put_evaluation(folder)
    return RunResults(folder)


FIGURES = st.fixed_dictionaries({name: st.integers(0, 9).map(float) for name in METRICS})


@settings(max_examples=12)
@given(figures=st.lists(FIGURES, min_size=1, max_size=40))
def test_the_best_the_worst_and_the_front_are_seen_and_heard(
    run: RunResults, figures: list[dict[str, float]]
) -> None:
    results = rank([Result(n, {}, "finished", figures=f) for n, f in enumerate(figures)], METRICS)
    numbers = [result.number for result in results]
    front = {result.number for result in results if result.unbeaten}
    sweep = Sweep(
        Path(), {"metrics": METRICS, "axes": []}, [Trial(result, [run]) for result in results], []
    )
    shown = list(exhibits(sweep))
    assert {numbers[0], numbers[-1]} <= set(shown)
    assert shown == [number for number in numbers if number in shown]
    assert len(shown) <= MAX_TRIALS
    if len(numbers) <= MAX_TRIALS or len(front) < MAX_TRIALS:
        assert front <= set(shown)


def test_the_question_of_the_space_comes_first_and_is_repeated(folder: Path) -> None:
    about = "Does a *larger* model gain <anything>,\nor is it only wärmer?"
    folders.sweep(folder, trials=1, about=about)
    page = read(folder)
    text = " ".join(page.words)
    assert (
        text.index("Question and answer") < text.index(about) < text.index("How do model, latents")
    )
    (code,) = [words for words in page.words if words.startswith("about:")]
    assert yaml.safe_load(code)["about"] == about
    assert "there is nothing to compare it with" in page
    described = json.loads((folder / "sweep.json").read_text())
    del described["about"]  # as before questions were recorded
    (folder / "sweep.json").write_text(json.dumps(described))
    (folder / "optuna.db").unlink()
    page = read(folder)
    assert "about:" not in page
    assert "No trial finished, so there is no answer." in page
    assert "0 of 1 trials had started." in page


def test_a_sweep_that_was_cut_off_is_read_from_its_study_and_folders(folder: Path) -> None:
    def until_the_fourth(number: int, values: dict[str, Any]) -> Result | None:
        return None if number > 4 else mixed(number, values)

    ended = folders.sweep(folder, until_the_fourth, trials=6)
    folders.trained(folder / "trials" / "5")
    (folder / "trials" / "6").mkdir()
    (folder / "trials" / "6" / "failure.txt").write_text("no memory\n\nTraceback")
    page = read(folder)
    rows = {row["trial"]: row for row in trials(page.tables)}
    finished = [str(result.number) for result in ended if result.state == "finished"]
    assert list(rows) == [*finished, "3", "5", "6"]
    assert (rows["5"]["state"], rows["5"]["epochs"]) == ("training", "4")
    assert rows["5"]["cause"] == "interrupted, or still running"
    assert (rows["6"]["state"], rows["6"]["cause"]) == ("failed", "no memory")
    assert "6 of 6 trials had started" in page


def test_the_space_that_is_written_out_is_the_one_that_was_explored() -> None:
    def facts(explored: Space) -> dict[str, Any]:
        """What a sweep's folder says, as it is read back."""
        return dict(json.loads(json.dumps(describe_sweep(explored))))

    for name in space_names():
        explored = load_space(name).pinned({"train.epochs": 7, "train.seed": 3})
        written = yaml.safe_load(space(facts(explored)))
        assert facts(read_space(name, written)) == facts(explored)


def test_damaged_files_links_and_other_folders_are_refused_by_name(
    folder: Path, tmp_path: Path
) -> None:
    def refused(message: str) -> None:
        with pytest.raises(Refusal, match=message):
            report.write(folder)

    folder.mkdir()
    refused(r"neither a sweep \(sweep.json\) nor a run")
    folders.sweep(folder, trials=1)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "picture.png").symlink_to(tmp_path / "secret.png")
    refused(r"picture\.png")
    (folder / "picture.png").unlink()
    (folder / "trials" / "1" / "seed-x").mkdir(parents=True)
    refused(r"trials/1/seed-x: not the folder of a seed; seed-N")
    (folder / "optuna.db").write_bytes(b"no database, but long enough to be looked at" * 10)
    refused(r"optuna\.db: cannot be read")
    (folder / "sweep.json").write_text("{}")
    refused(r"sweep\.json: 'name' is missing")


def test_a_report_may_be_rebuilt_and_nothing_else_is_replaced_unasked(
    folder: Path, tmp_path: Path
) -> None:
    folders.sweep(folder, trials=1)
    first = report.write(folder).read_bytes()
    assert report.write(folder) == folder / "report.html"
    assert (folder / "report.html").read_bytes() == first
    page = tmp_path / "other.html"
    page.write_text("<p>mine</p>")
    with pytest.raises(Refusal, match=r"other\.html: exists; another name or --force"):
        report.write(folder, page)
    assert page.read_text() == "<p>mine</p>"
    assert Page(report.write(folder, page, force=True).read_text()).tables
    with pytest.raises(Refusal, match=r"html or \.htm expected"):
        report.write(folder, tmp_path / "a.pdf")


SPANS = {
    "model.kind": CategoricalDistribution(["vae", "vsc"]),
    "model.latent": IntDistribution(2, 64),
    "train.batch": IntDistribution(16, 64),
    "model.alpha": FloatDistribution(0.1, 0.9),
}
COMMON = ["model.kind", "model.latent", "train.batch"]


def sampled(count: int, figure: Callable[[dict[str, Any]], float]) -> list[FrozenTrial]:
    """Trials drawn at random, and their figure."""
    chance, trials = random.Random(0), []
    for number in range(count):
        params: dict[str, Any] = {
            "model.kind": ("vae", "vsc")[number % 2],
            "model.latent": chance.randint(2, 64),
            "train.batch": chance.randint(16, 64),
        }
        if params["model.kind"] == "vsc":
            params["model.alpha"] = chance.uniform(0.1, 0.9)
        spans = {name: SPANS[name] for name in params}
        trials.append(create_trial(params=params, distributions=spans, values=[figure(params)]))
        trials[-1].number = number
    return trials


def test_the_parameter_that_decides_has_the_largest_share_of_a_figure_that_differs() -> None:
    found = shares(sampled(40, lambda params: float(params["model.latent"])), COMMON, 0)
    assert next(iter(found)) == "model.latent"
    assert found["model.latent"] > 0.9
    assert sum(found.values()) == pytest.approx(1)
    alike = sampled(12, lambda params: 1.0 + 1e-9 * (params["train.batch"] > 40))
    assert shares(alike, COMMON, 0) == {}


def test_parameters_of_all_finished_trials_are_compared() -> None:
    trials = sampled(12, lambda params: 1.0)
    results = [Result(n + 1, {}, "failed" if n == 3 else "finished") for n in range(12)]
    sweep = Sweep(Path(), {}, [Trial(result, []) for result in results], trials)
    assert [trial.number for trial in sampled_trials(sweep)] == [0, 1, 2, *range(4, 12)]
    assert varied(sampled_trials(sweep)) == COMMON
    assert varied([]) == []
    assert (needed(COMMON[:1]), needed(COMMON)) == (10, 12)


def test_every_figure_is_explained_and_has_one_anchor_on_the_page_of_measures() -> None:
    page = (Path(__file__).parents[2] / "docs" / "measures.md").read_text()
    assert sorted(re.findall(r'<a id="(\w+)"></a>`\1`', page)) == sorted(GLOSSARY)
    assert page.count("<a id=") == len(GLOSSARY)
    figures = {name for measure in MEASURES.values() for name in measure.figures}
    assert {*figures, *WAVEFORM, "isd"} - {"iw_bound_row_std", "probe_relu_std"} <= GLOSSARY.keys()
