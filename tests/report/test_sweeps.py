"""The page of a sweep, however it ended: everything that results.json says is on it, and nothing is
asked of others.
"""

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState, create_trial

from distvae import report
from distvae.files.refusal import Refusal
from distvae.tune.optuna_study import OptunaStudy
from distvae.tune.results import Result
from tests.report import folders as sweeps
from tests.report.reader import Page, alike, markdown_tables, trials

SHOUT = "<script>alert(1)</script> | *bold* & [link](javascript:1)"


def read(folder: Path) -> tuple[Page, str]:
    """The page of a folder and its twin."""
    page = report.write(folder)
    return Page(page.read_text()), page.with_suffix(".md").read_text()


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """What results.json says of each trial."""
    return {
        str(trial["number"]): trial
        for trial in json.loads((folder / "results.json").read_text())["trials"]
    }


def failed(number: int, values: dict[str, Any]) -> Result:
    return Result(number, values, "failed", cause=SHOUT)


def mixed(number: int, values: dict[str, Any]) -> Result:
    """Trials of every end."""
    ends = {
        3: failed(number, values),
        5: Result(number, values, "halted", 2, -9.5, {}, 3.0, "worse than others"),
    }
    return ends.get(number) or sweeps.judged(number, values)


@pytest.mark.parametrize("seeds", [1, 3])
def test_every_trial_of_the_results_is_in_both_tables_with_its_figures(
    folder: Path, seeds: int
) -> None:
    def judge(number: int, values: dict[str, Any]) -> Result:
        (result,) = (
            [mixed(number, values)]
            if seeds == 1
            else sweeps.of_seeds([sweeps.judged(number, values)])
        )
        return result

    sweeps.without_a_ledger(folder, judge, seeds=seeds)
    page, twin = read(folder)
    by_number = listed(folder)
    for tables in (page.tables, markdown_tables(twin)):
        shown, same = trials(tables), alike(tables)
        assert [row["trial"] for row in shown] == list(by_number)
        for row in shown:
            trial = by_number[row["trial"]]
            assert (row["\N{BLACK STAR}"] != "") == trial["unbeaten"]
            assert trial["state"] in row["state"]
            assert row.get("cause", "") == trial["cause"]
            assert float(row["model.latent"]) == trial["values"]["model.latent"]
            alpha = trial["values"].get("model.alpha", math.nan)
            assert float(row["model.alpha"] or math.nan) == pytest.approx(
                alpha, rel=1e-5, nan_ok=True
            )
            for name, value in trial["figures"].items():
                mean, _, spread = (row.get(name.removesuffix("_spread")) or same[name]).partition(
                    " \N{PLUS-MINUS SIGN} "
                )
                assert float(spread if name.endswith("_spread") else mean) == pytest.approx(
                    value, rel=6e-3
                )


def test_the_table_comes_sorted_by_the_first_figure_and_says_so(folder: Path) -> None:
    sweeps.without_a_ledger(folder)
    page, _ = read(folder)
    values = [float(row["squared_error"]) for row in trials(page.tables)]
    assert values == sorted(values)
    sorted_by = [head for head in page.heads if "aria-sort" in head]
    assert [head["aria-sort"] for head in sorted_by] == ["ascending"]
    names = [cell for table in page.tables if table[0][0] == "trial" for cell in table[0]]
    assert names[page.heads.index(sorted_by[0])] == "squared_error"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a sweep some of whose trials left runs, pictures and sounds."""
    folder = tmp_path_factory.mktemp("trained") / "sweep"
    first, second, *_, last = sweeps.without_a_ledger(folder)
    for result in (first, second, last):
        sweeps.trained(folder / "trials" / str(result.number))
    for result in (first, last):
        sweeps.put_evaluation(folder / "trials" / str(result.number))
    return read(folder)[0]


def test_nothing_is_asked_of_anybody(trained: Page) -> None:
    assert len([each for each in trained.addresses if each.startswith("data:")]) == 4
    assert all(
        re.match(r"data:(image/(png|webp)|audio/ogg);base64,|#", each) for each in trained.addresses
    )
    assert not re.search(r"@import|url\((?!#)|<link|https?:", trained.text)
    ids = [attributes["id"] for _, attributes in trained.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_bounds_of_different_priors_are_drawn_apart(trained: Page) -> None:
    drawn = [words for words in trained.words if re.match(r"(vae|vsc): [12] trials?[;.]", words)]
    assert len(drawn) == 2
    assert "each has its own axes" in trained


@pytest.mark.parametrize(
    ("priors", "apart"), [(["fixed", "pseudo"], True), (["fixed", "learned"], False)]
)
def test_bounds_are_drawn_apart_where_a_prior_makes_them_another_figure(
    priors: list[str], apart: bool, folder: Path
) -> None:
    """A pseudo-input prior does, a learned probability of a bit does not."""
    base = "mnist-vsc" if apart else "mnist-gumbel"
    for result in sweeps.sweep(
        folder,
        base=base,
        search="grid",
        trials=2,
        axes=[{"key": "model.prior", "choice": priors}],
    ):
        sweeps.trained(folder / "trials" / str(result.number))
    page, _ = read(folder)
    assert ("each has its own axes" in page) is apart


def test_what_a_trial_says_is_text_and_nothing_else(folder: Path) -> None:
    def judge(number: int, values: dict[str, Any]) -> Result:
        return mixed(number, values | ({"model.kind": SHOUT} if number == 2 else {}))

    sweeps.without_a_ledger(folder, judge)
    page, twin = read(folder)
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1
    assert "<script>alert" not in page.text
    assert [row["cause"] for row in trials(page.tables) if row["state"] == "failed"] == [SHOUT]
    assert SHOUT in [row["model.kind"] for row in trials(page.tables)]
    assert SHOUT in [row["model.kind"] for row in trials(markdown_tables(twin))]
    assert "<script>" not in re.sub(r"\\<", "", twin)
    assert "](javascript" not in re.sub(r"\\\]", "", twin)


def test_the_question_of_the_space_comes_first_and_is_repeated(folder: Path) -> None:
    about = "Does a *larger* model gain <anything>,\nor is it only wärmer?"
    sweeps.without_a_ledger(folder, trials=2, about=about)
    page, twin = read(folder)
    words = next(each for each in page.words if "larger" in each)
    assert words.split() == about.split()
    text = " ".join(page.words)
    assert text.index("Question and answer") < text.index(words) < text.index("How do model.kind")
    assert "\\*larger\\*" in twin
    (code,) = re.findall(r"^```\n(about:.*?)^```", twin, re.DOTALL | re.MULTILINE)
    assert yaml.safe_load(code)["about"] == about


def test_a_sweep_from_before_questions_were_recorded_is_a_page(folder: Path) -> None:
    sweeps.without_a_ledger(folder, trials=2)
    facts = json.loads((folder / "sweep.json").read_text())
    del facts["about"]
    (folder / "sweep.json").write_text(json.dumps(facts))
    page, twin = read(folder)
    assert "How do model.kind" in page
    assert "about:" not in twin


def test_a_sweep_that_tried_nothing_is_a_page(folder: Path) -> None:
    sweeps.without_a_ledger(folder, trials=1)
    (folder / "results.json").write_text('{"metrics": {}, "trials": []}')
    page, twin = read(folder)
    assert "No trial was started" in page
    assert "No trial was started" in twin


def test_one_trial_has_nothing_to_be_compared_with(folder: Path) -> None:
    sweeps.without_a_ledger(folder, trials=1)
    page, _ = read(folder)
    assert "there is nothing to compare it with" in page
    assert len(trials(page.tables)) == 1


def test_a_sweep_whose_every_trial_failed_says_why(folder: Path) -> None:
    sweeps.without_a_ledger(folder, failed)
    page, twin = read(folder)
    assert "No trial finished, so there is no answer" in page
    for tables in (page.tables, markdown_tables(twin)):
        assert {(row["state"], row["cause"]) for row in trials(tables)} == {("failed", SHOUT)}


def test_a_sweep_that_was_cut_off_is_read_from_its_ledger(folder: Path) -> None:
    def until_the_fourth(number: int, values: dict[str, Any]) -> Result | None:
        return None if number > 4 else mixed(number, values)

    ended = sweeps.sweep(folder, until_the_fourth, concluded=False, trials=6)
    sweeps.trained(folder / "trials" / "5")
    (folder / "trials" / "6").mkdir()
    (folder / "trials" / "6" / "failure.txt").write_text("no memory\n\nTraceback")
    page, _ = read(folder)
    rows = {row["trial"]: row for row in trials(page.tables)}
    assert list(rows) == [
        *(str(result.number) for result in ended if result.state == "finished"),
        "3",
        "5",
        "6",
    ]
    assert (rows["5"]["state"], rows["5"]["epochs"]) == ("unfinished", "4")
    assert (rows["6"]["state"], rows["6"]["cause"]) == ("failed", "no memory")
    assert "6 of 6 trials had started" in page
    for result in ended:
        for name in result.figures.keys() & rows[str(result.number)].keys():
            assert float(rows[str(result.number)][name]) == pytest.approx(
                result.figures[name], rel=6e-4
            )


def test_what_happened_after_the_results_were_written_is_not_overlooked(folder: Path) -> None:
    ended = sweeps.sweep(folder)
    written = json.loads((folder / "results.json").read_text())
    stale = [
        asdict(replace(r, state="stopped", figures={}, unbeaten=False))
        if r.number == 2
        else asdict(r)
        for r in ended
    ]
    (folder / "results.json").write_text(
        json.dumps(written | {"trials": [trial for trial in stale if trial["number"] != 4]})
    )
    page, _ = read(folder)
    rows = {row["trial"]: row for row in trials(page.tables)}
    assert {row["state"] for row in rows.values()} == {"finished"}
    assert list(rows) == [str(result.number) for result in ended]


def test_without_the_ledger_there_are_results_and_no_importances(folder: Path) -> None:
    sweeps.without_a_ledger(folder)
    page, _ = read(folder)
    assert len(trials(page.tables)) == 6
    assert "(optuna.db) is not in the folder" in page


def test_too_few_trials_are_said_and_not_drawn(folder: Path) -> None:
    sweeps.sweep(folder, trials=3)
    page, _ = read(folder)
    assert "All trials: 3 trials finished. To tell parameters apart takes 10 or more." in page
    assert "The same command with --trials 10 --resume adds the trials that are missing." in page
    assert "share of the variance" not in page


def test_of_equal_figures_no_parameter_matters(folder: Path) -> None:
    def equal(number: int, values: dict[str, Any]) -> Result:
        result = sweeps.judged(number, values)
        return replace(result, figures={**result.figures, "squared_error": 0.5, "hoyer": 0.5})

    axes = [
        {"key": "model.latent", "choice": [2, 4, 8]},
        {"key": "train.rate", "float": [0.1, 1.0]},
    ]
    sweeps.sweep(folder, equal, trials=12, axes=axes)
    page, _ = read(folder)
    assert "12 trials are equally good, and the best of 12: " in page
    assert "All trials have figures that hardly differ, or that differ where no" in page
    assert "Bars are shares" not in page


@pytest.mark.parametrize("search", ["random", "grid"])
def test_a_sweep_that_has_begun_few_of_its_trials_is_to_go_on(search: str, folder: Path) -> None:
    space: dict[str, Any] = {"search": search}
    if search == "grid":
        space |= {"axes": [{"key": "model.latent", "choice": [2, 4, 8, 16, 32, 64]}]}
    sweeps.sweep(folder, trials=3, **space)
    facts = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(facts | {"trials": 6}))
    page, _ = read(folder)
    assert "3 of 6 trials have begun: the same command with --resume goes on." in page


def test_a_population_is_counted_without_its_branches_and_not_asked_to_grow(folder: Path) -> None:
    fields: dict[str, Any] = {"scheduler": "population", "trials": 4}
    ended = sweeps.sweep(folder, concluded=False, **fields)
    lineage = {"parent": ended[0].number, "epoch": 2, "replaces": ended[-1].number}
    attributes = {"values": ended[0].values, "lineage": lineage}
    branch = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
    OptunaStudy(sweeps.make_space(**fields), folder).study.add_trial(branch)
    page, twin = read(folder)
    assert "4 of 4 trials had started" in page
    origins = {row["trial"]: row["continues"] for row in trials(page.tables)}
    assert origins["5"] == f"trial {ended[0].number} at epoch 2"
    assert "To tell parameters apart takes 10 or more." in page
    assert "4 of 4 trials have begun: the same command with --resume goes on." in page
    assert "--trials" not in twin


def test_damaged_files_and_other_folders_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"neither a sweep \(sweep.json\) nor a run"):
        report.write(tmp_path)
    sweeps.sweep(folder, trials=1)
    (folder / "trials" / "1" / "seed-x").mkdir(parents=True)
    with pytest.raises(Refusal, match=r"trials/1/seed-x: not the folder of a seed; seed-N"):
        report.write(folder)
    (folder / "trials" / "1" / "seed-x").rmdir()
    (folder / "results.json").write_text("{")
    with pytest.raises(Refusal, match=r"results\.json: altered or damaged"):
        report.write(folder)
    (folder / "results.json").write_text('{"trials": [{"colour": 1}]}')
    with pytest.raises(Refusal, match=r"results\.json: not a list of trials"):
        report.write(folder)
    (folder / "results.json").unlink()
    (folder / "optuna.db").write_bytes(b"no database, but long enough to be looked at" * 10)
    with pytest.raises(Refusal, match=r"optuna\.db: cannot be read"):
        report.write(folder)
    (folder / "sweep.json").write_text("{}")
    with pytest.raises(Refusal, match=r"sweep\.json: 'name' is missing"):
        report.write(folder)


def test_a_report_may_be_rebuilt_and_nothing_else_is_replaced_unasked(
    folder: Path, tmp_path: Path
) -> None:
    sweeps.without_a_ledger(folder, trials=1)
    assert report.write(folder) == report.write(folder) == folder / "report.html"
    assert report.write(folder, tmp_path / "a.html") == report.write(folder, tmp_path / "a.html")
    for name in ("other.html", "twin.md"):
        (tmp_path / name).write_text("<p>mine</p>")
        page = (tmp_path / name).with_suffix(".html")
        with pytest.raises(Refusal, match=f"{name}: exists; another name or --force"):
            report.write(folder, page)
        assert (tmp_path / name).read_text() == "<p>mine</p>"
        assert Page(report.write(folder, page, force=True).read_text()).tables
    with pytest.raises(Refusal, match=r"html or \.htm expected"):
        report.write(folder, tmp_path / "a.pdf")


def test_the_hypervolume_is_told_with_its_reference(folder: Path) -> None:
    results = sweeps.without_a_ledger(folder, trials=2)
    page, _ = read(folder)
    text = " ".join(" ".join(page.words).split())
    found = re.search(
        r"hypervolume of (\S+) above the reference point squared_error (\S+) and hoyer 0\.", text
    )
    assert found
    error, sparse = zip(
        *((r.figures["squared_error"], r.figures["hoyer"]) for r in results), strict=True
    )
    assert float(found[2]) == pytest.approx(max(error), rel=6e-4)
    expected = (max(error) - min(error)) * sparse[0]
    assert math.isclose(float(found[1]), expected, rel_tol=5e-3)
