"""Time epochs of TVAE beside those of a peer, from the same trained states."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from distvae.bench.beside import tvo
from distvae.bench.beside.output import Contestants, show_contest
from distvae.bench.beside.peers import Imported, recognise
from distvae.bench.beside.turns import Trained, Turn, compare, take_turns
from distvae.bench.output import Output
from distvae.bench.tvae import BATCH, CASES, HouseCase, new_trainer, noisy_patches
from distvae.data.dataset import Array
from distvae.estep.truncated import Search
from distvae.models.state_decoder import FromBits
from distvae.models.tvae import MIN_PI, TVAE
from distvae.numerics.noise import order
from distvae.train.loop import Trainer
from distvae.train.step import add
from distvae.train.stopping import Interrupted

TURN = 4096
"""Rows of a turn: as many as the largest block that is searched together."""


@dataclass(frozen=True)
class TvaeContest:
    """The states that both programs begin from, and what they do then."""

    rows: int
    """Rows to train on, at most: those of whole turns are."""
    epochs: int
    """Epochs that are trained before the turns."""
    threads: int
    turns: int

    @property
    def turn(self) -> int:
        """The rows of a turn."""
        return min(TURN, self.rows // BATCH * BATCH)


def start_ours(case: HouseCase, contest: TvaeContest, rows: Array, file: Path) -> Turn:
    """Train, write the trained state into a file, and return the training that follows."""
    torch.set_num_threads(contest.threads)
    # The turns may take as many epochs again.
    trainer = new_trainer(case, rows, contest.epochs + contest.turns + 1)
    run = trainer.run()
    for _ in range(contest.epochs):
        next(run)
    write_state(trainer, file)

    def turn(number: int) -> Trained:
        return train_turn(trainer, contest.turn // BATCH)

    return turn


def train_turn(trainer: Trainer, steps: int) -> Trained:
    """Train for at least so many steps, up to the end of a block of rows. Return the rows, and
    their mean objective at the steps that they were in.
    """
    first, before = trainer.steps_taken(), objective_sum(trainer)
    finished = 0.0  # an epoch that ends takes its sum with it
    with suppress(Interrupted):
        for epoch in trainer.run(lambda: trainer.steps_taken() >= first + steps):
            finished += epoch.train_objective * len(trainer.train)
    rows = (trainer.steps_taken() - first) * BATCH
    return Trained(rows, (finished + objective_sum(trainer) - before) / rows)


def objective_sum(trainer: Trainer) -> float:
    """Return the sum of the objective over the rows of the current epoch so far."""
    add(trainer.total, trainer.ascent.later_sums())
    return float(trainer.total.get("objective", 0.0))


def bench_tvae_beside(
    checkout: Path, picture: Path | None, contest: TvaeContest, output: Output
) -> None:
    """Time each case beside the peer in a folder."""
    peer = recognise(checkout, "tvae")
    for name, case in CASES.items():
        data = noisy_patches(case, picture)
        rows = data[order(0, 0, len(data))[: contest.rows // contest.turn * contest.turn]]
        with TemporaryDirectory(prefix="distvae-bench-") as folder:
            file = Path(folder) / "state.safetensors"
            ours = partial(start_ours, case, contest, rows, file)
            begin = partial(tvo.start, case, contest.threads, file, contest.turn)
            theirs = Imported(peer, checkout, begin)
            turns = take_turns(ours, theirs, contest.threads, contest.turns)
        figures = compare(turns, len(data), contest.threads)
        show_contest(
            Contestants(f"tvae-{name}", peer.name, peer.version(checkout)),
            figures,
            asdict(contest),
            output,
        )


def write_state(trainer: Trainer, file: Path) -> None:
    """Write the rows, the parameters and the kept states of a training into a file."""
    model, estep = trainer.model, trainer.estep
    assert isinstance(model, TVAE)
    assert isinstance(estep, Search)
    rows = torch.from_numpy(trainer.train)
    tensors = {"rows": rows, "words": estep.store.get(torch.arange(len(rows)))}
    variance = model.likelihood.get_buffer("variance")
    pi = model.pi.clamp(MIN_PI, 1 - MIN_PI)  # as ours weighs it; the peer takes no zero
    tensors |= {"pi": pi, "variance": variance}
    tensors |= layers_of(model)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)


def layers_of(model: TVAE) -> Mapping[str, Tensor]:
    """Return the weights (in, out) and the biases of the decoder's layers, by their number."""
    linear = [layer for layer in model.decoder if isinstance(layer, nn.Linear | FromBits)]
    tensors = {}
    for number, layer in enumerate(linear):
        is_first = isinstance(layer, FromBits)
        tensors[f"weight.{number}"] = layer.weight if is_first else layer.weight.T
        tensors[f"bias.{number}"] = layer.bias
    return tensors
