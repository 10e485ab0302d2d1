"""Other programs are recognised by their files, and take turns with this one."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distvae.bench.beside import peers, reach, steps, turns, tvae
from distvae.bench.beside.turns import Timed, Trained, Turn, Turns
from distvae.bench.output import Output
from distvae.bench.tvae import CASES, new_trainer, noisy_patches
from distvae.files.refusal import Refusal
from distvae.models.tvae import TVAE
from tests.bench.peers import make_checkout
from tests.called import Called

PLACES = "DISTVAE_PEERS"
"""Names the folder that holds checkouts `tvo`, `vsc` and `pythae` of the real programs."""


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the made programs need no packages."""
    made = tuple(replace(peer, packages=()) for peer in peers.PEERS)
    monkeypatch.setattr(peers, "PEERS", made)


@pytest.mark.usefixtures("no_packages")
@pytest.mark.parametrize(
    ("name", "benchmark"), [("tvo", "tvae"), ("vsc", "steps"), ("pythae", "steps")]
)
def test_a_checkout_is_recognised_by_its_files(tmp_path: Path, name: str, benchmark: str) -> None:
    checkout = make_checkout(name, tmp_path)
    assert peers.recognise(checkout, benchmark).name == name
    other = "steps" if benchmark == "tvae" else "tvae"
    with pytest.raises(Refusal, match=f"{name}, which 'distvae bench {benchmark}' times"):
        peers.recognise(checkout, other)


@pytest.mark.parametrize("benchmark", ["tvae", "steps"])
def test_a_folder_without_a_known_program_is_refused(
    call: Called, tmp_path: Path, benchmark: str
) -> None:
    code, out, err = call("bench", benchmark, "--beside", str(tmp_path))
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    for name in ("tvo", "vsc", "pythae"):
        assert f"{name} (" in err


def test_packages_that_a_program_lacks_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = replace(peers.TVO, packages=("torch", "no_such_package", "nor_this"))
    monkeypatch.setattr(peers, "PEERS", (needy,))
    checkout = make_checkout("tvo", tmp_path)
    with pytest.raises(Refusal, match="not installed: no_such_package, nor_this"):
        peers.recognise(checkout, "tvae")


@pytest.mark.usefixtures("no_packages")
def test_a_program_that_is_not_compiled_is_refused_with_the_command(tmp_path: Path) -> None:
    checkout = make_checkout("tvo", tmp_path)
    next(checkout.glob("tvo/variational/*.so")).unlink()
    with pytest.raises(Refusal, match="build_ext"):
        peers.recognise(checkout, "tvae")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["steps", "--turns", "3"], "--beside PATH expected"),
        (["tvae", "--turns", "3"], "--beside PATH expected"),
        (["tvae", "--reach", "30"], "--beside and --picture expected too"),
        (["tvae", "--reach", "30", "--beside", ".", "--turns", "3"], "omit --turns"),
        (["steps", "mnist-vae", "--beside", "."], "the other program says what is trained"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    call: Called, words: list[str], message: str
) -> None:
    code, _, err = call("bench", *words)
    assert code == 2
    assert message in err


def timed(rows: int, cpu: float, wall: float) -> Timed:
    """Return a turn."""
    return Timed(rows, -1.5, cpu, wall)


TAKEN = Turns(
    peer=[timed(10, 2.0, 4.0), timed(10, 3.0, 5.0), timed(10, 8.0, 9.0)],
    ours=[timed(20, 1.0, 4.0), timed(20, 2.0, 1.0), timed(10, 2.0, 3.0)],
    products=[timed(0, 4.0, 8.0), timed(0, 2.0, 5.0), timed(0, 3.0, 4.0)],
)


def test_one_thread_is_judged_by_processor_time() -> None:
    figures = turns.compare(TAKEN, 100, threads=1)
    peer, ours = [20.0, 30.0, 80.0], [5.0, 10.0, 20.0]
    for name, seconds in (("peer", peer), ("ours", ours)):
        found = [figures[f"{name}_s{end}"] for end in ("_min", "", "_max")]
        assert found == seconds
    ratios = [figures[f"speedup{end}"] for end in ("_min", "", "_max")]
    assert ratios == [3.0, 4.0, 4.0], "of turns in pairs"
    assert figures["wall_peer_s"] == 50.0
    assert figures["wall_ours_s"] == 20.0
    assert figures["gflops"] == pytest.approx(2 * 4.096**3 / 2.0)
    assert figures["peer_bound"] == figures["ours_bound"] == -1.5


def test_several_threads_are_judged_by_the_clock_on_the_wall() -> None:
    figures = turns.compare(TAKEN, 100, threads=2)
    assert figures["peer_s"] == 50.0
    assert figures["cpu_peer_s"] == 30.0
    assert figures["gflops"] == pytest.approx(2 * 4.096**3 / 4.0)


def start_failing() -> Turn:
    """Prepare a training that fails in its second turn."""

    def turn(number: int) -> Trained:
        if number:
            raise KeyError("weights")
        return Trained(7)

    return turn


def start_nothing() -> Turn:
    """Fail to prepare."""
    raise ModuleNotFoundError("No module named 'weights'")


@pytest.mark.long
def test_what_a_program_fails_with_is_a_refusal_that_names_it(tmp_path: Path) -> None:
    with turns.Seat(peers.Imported(peers.VSC, tmp_path, start_failing)) as seat:
        taken = seat.take_turn(0)
        assert taken.rows == 7
        assert taken.wall >= 0
        with pytest.raises(Refusal, match=r"vsc has failed: KeyError: 'weights'"):
            seat.take_turn(1)
    with (
        pytest.raises(Refusal, match="No module named 'weights'"),
        turns.Seat(peers.Imported(peers.VSC, tmp_path, start_nothing)),
    ):
        pass


@pytest.mark.long
@pytest.mark.usefixtures("no_packages")
@pytest.mark.parametrize(
    ("name", "case"),
    [("pythae", "steps-vae"), ("vsc", "steps-vsc")],
)
def test_steps_beside_another_program_become_a_row(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, case: str
) -> None:
    checkout = make_checkout(name, tmp_path / "peer")
    contest = steps.StepsContest(steps=10, threads=1, turns=2)
    steps.bench_steps_beside(checkout, contest, Output(True, tmp_path))
    printed = json.loads(capfd.readouterr().out)
    row = json.loads((tmp_path / "bench" / f"{case}-beside-{name}.json").read_text())
    assert row["config"] == {"steps": 10, "threads": 1, "turns": 2}
    assert row["peer"] == printed["peer"] == name, "a checkout without a history"
    assert row["section"] == "Beside other programs"
    assert "cores" in row["machine"]
    for figure, value in row["figures"].items():
        assert printed[figure] == value > 0
    assert row["figures"]["speedup_min"] <= row["figures"]["speedup_max"]


@pytest.mark.long
@pytest.mark.usefixtures("no_packages")
def test_epochs_of_tvae_beside_another_program_become_rows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tvae, "CASES", {"small": CASES["small"]})
    checkout = make_checkout("tvo", tmp_path / "peer")
    contest = tvae.TvaeContest(rows=1024, epochs=1, threads=1, turns=2)
    tvae.bench_tvae_beside(checkout, None, contest, Output(True, tmp_path))
    (line,) = capfd.readouterr().out.splitlines()
    printed = json.loads(line)
    row = json.loads((tmp_path / "bench" / f"{printed['case']}-beside-tvo.json").read_text())
    assert row["config"] == {"rows": 1024, "epochs": 1, "threads": 1, "turns": 2}
    assert row["figures"]["peer_bound"] == -1024, "the whole turn is one block of its rows"
    assert row["figures"]["ours_s"] == printed["ours_s"] > 0


def test_the_objective_of_a_turn_is_that_of_its_own_steps() -> None:
    case = replace(CASES["small"], states=8, parents=2, children=2, generations=1, block=64)
    rows = noisy_patches(case, None)[:128]
    trainer = new_trainer(case, rows, 3)
    taken = [tvae.train_turn(trainer, 2) for _ in range(4)]
    assert [turn.rows for turn in taken] == [64] * 4
    epochs = [epoch.train_objective for epoch in new_trainer(case, rows, 3).run()][:2]
    pairs = [taken[0].bound + taken[1].bound, taken[2].bound + taken[3].bound]
    assert pairs == pytest.approx([2 * epoch for epoch in epochs], rel=1e-5)
    assert len({turn.bound for turn in taken}) == 4


def drawn_picture(folder: Path) -> Path:
    """Write a grey picture with an edge."""
    levels = np.full((16, 20), 60, np.uint8)
    levels[4:, 6:] = 190
    Image.fromarray(levels).save(folder / "edge.png")
    return folder / "edge.png"


def test_restored_patches_are_scored_as_a_picture_in_grey_levels(tmp_path: Path) -> None:
    picture = drawn_picture(tmp_path)
    clean = reach.clean_picture(picture)
    noisy = reach.noisy_picture(clean)
    assert reach.score_patches(picture, noisy_patches(CASES["small"], picture)) == pytest.approx(
        10 * np.log10(255**2 / np.square(noisy - clean).mean()), abs=1e-4
    )
    standard = (clean - noisy.mean()) / noisy.std()
    patches = np.lib.stride_tricks.sliding_window_view(standard[..., 0], (8, 8)).reshape(-1, 64)
    assert reach.score_patches(picture, patches) > 200


class Seat:
    """A training whose picture is better by some decibels after each epoch of two seconds."""

    def __init__(self, gain: float) -> None:
        self.gain, self.epochs = gain, 0

    def take_turn(self, number: int) -> Timed:
        if number == turns.SCORE:
            return Timed(0, self.gain * self.epochs, 100.0, 100.0)
        assert number == self.epochs, "epochs are numbered"
        self.epochs += 1
        return Timed(10, 0.0, 2.0, 3.0)


@pytest.mark.parametrize(("gain", "epochs", "psnr"), [(6.0, 5, 30.0), (1.0, 8, 8.0)])
def test_a_race_ends_when_both_have_the_quality_or_no_epochs_left(
    gain: float, epochs: int, psnr: float
) -> None:
    ours, peer = reach.Runner(Seat(10.0), 10), reach.Runner(Seat(gain), 8)
    figures = reach.race(ours, peer, 30.0)
    assert (figures["ours_epochs"], figures["peer_epochs"]) == (3, epochs)
    assert (figures["ours_s"], figures["peer_s"]) == (6.0, 2.0 * epochs), "scoring is not timed"
    assert figures["peer_psnr"] == psnr
    assert figures["speedup"] == epochs / 3
    text = reach.describe_reach("tvo", reach.Goal(30.0, 8, 1), figures)
    assert ("at least" in text) == ("not enough" in text) == (psnr < 30)


@pytest.mark.long
@pytest.mark.usefixtures("no_packages")
def test_the_time_to_a_quality_becomes_a_row(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkout = make_checkout("tvo", tmp_path / "peer")
    goal = reach.Goal(psnr=15.0, peer_epochs=2, threads=1)
    reach.bench_reach(checkout, drawn_picture(tmp_path), goal, Output(True, tmp_path))
    printed = json.loads(capfd.readouterr().out)
    row = json.loads((tmp_path / "bench" / "reach-15-beside-tvo.json").read_text())
    assert row["section"] == "Beside other programs"
    assert row["figures"]["ours_psnr"] == printed["ours_psnr"] >= 15
    assert row["figures"]["ours_s"] > 0
    assert row["figures"]["peer_epochs"] == 1, "which returns the noisy picture"


def test_the_layers_that_a_peer_is_given_decode_as_ours_do(tmp_path: Path) -> None:
    rows = noisy_patches(CASES["small"], None)[:64]
    model = new_trainer(CASES["small"], rows, 1).model
    assert isinstance(model, TVAE)
    state = tvae.layers_of(model)
    z = (torch.rand(5, 64) < 0.2).float()
    hidden = (z @ state["weight.0"] + state["bias.0"]).relu()
    theirs = hidden @ state["weight.1"] + state["bias.1"]
    assert torch.allclose(theirs, model.output(z), atol=1e-5)


def real_peer(name: str) -> Path:
    """Return the checkout of a real program, or skip the test."""
    folder = os.environ.get(PLACES)
    if folder is None or not (Path(folder) / name).is_dir():
        pytest.skip(f"no checkout of {name}: {PLACES} names no folder that holds one")
    return Path(folder) / name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pythae", "vsc"])
def test_a_real_program_trains_beside_ours(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    contest = steps.StepsContest(steps=10, threads=1, turns=1)
    steps.bench_steps_beside(real_peer(name), contest, Output(True))
    assert json.loads(capfd.readouterr().out)["peer_s"] > 0


@pytest.mark.slow
def test_the_real_tvo_has_the_bound_of_ours_in_the_same_turn(
    capfd: pytest.CaptureFixture[str],
) -> None:
    contest = tvae.TvaeContest(rows=1024, epochs=3, threads=1, turns=1)
    tvae.bench_tvae_beside(real_peer("tvo"), None, contest, Output(True))
    for line in capfd.readouterr().out.splitlines():
        printed = json.loads(line)
        assert printed["peer_bound"] == pytest.approx(printed["ours_bound"], rel=0.05)
