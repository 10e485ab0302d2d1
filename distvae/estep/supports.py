"""E-steps of the spike-and-slab model: the support of each row found by its evidence, and all
supports.

A support begins empty. The atom with the largest gain in log p(x, A) joins it, until no atom gains
or the support is full. Nothing is kept from epoch to epoch: while atoms move, a fresh search finds
better supports than a search that begins from old ones.
"""

import torch
from torch import Tensor, nn

from distvae import config
from distvae.estep.search import in_parts
from distvae.interface import Batch
from distvae.models.spike_slab import Found, SpikeSlab, Supports

LEAST = 1e-6
"""The least precision that an atom has left, given the atoms of a support, relative to its own."""


class Selection(nn.Module):
    """Forward selection by the gain in evidence."""

    def __init__(self, config: config.Selection, model: SpikeSlab) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def __call__(self, model: SpikeSlab, batch: Batch) -> Supports:
        """Return the posteriors of rows on their supports."""
        if batch.x.device.type != "cpu":
            return model.posterior(batch, select(model, batch))
        parts = in_parts(len(batch.x), lambda rows: compiled_select(model, batch.part(rows)))
        found = Found(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        return model.posterior(batch, found)

    def infer(self, model: SpikeSlab, batch: Batch, sweeps: int | None = None) -> Supports:
        """Return the posteriors of new data, which are found as in training."""
        return self(model, batch)


class AllSupports(nn.Module):
    """The exact posterior, on all 2^H supports."""

    index: Tensor

    def __init__(self, config: config.AllSupports, model: SpikeSlab) -> None:
        super().__init__()
        latent = torch.arange(model.code_size)
        active = (torch.arange(2**model.code_size)[:, None] >> latent & 1).bool()
        order = (~active).byte().argsort(dim=1, stable=True)
        index = order.where(active.gather(1, order), -1)
        self.register_buffer("index", index[None], persistent=False)

    @torch.no_grad()
    def __call__(self, model: SpikeSlab, batch: Batch) -> Supports:
        """Return the posteriors of rows."""
        return model.posterior(batch, model.on_supports(batch, self.index))

    def infer(self, model: SpikeSlab, batch: Batch, sweeps: int | None = None) -> Supports:
        """Return the posteriors of new data."""
        return self(model, batch)


def compiled_select(model: SpikeSlab, batch: Batch) -> Found:
    """Return the supports of rows, by compiled loops."""
    from distvae.models import support_loops

    x, dictionary = model.centred(batch), model.dictionary
    shape = len(x), 1, int(model.limit)
    index = torch.full(shape, -1, dtype=torch.int32)
    mean, root = x.new_zeros(shape), x.new_zeros(*shape, shape[2])
    gain = x.new_zeros(shape[:2])
    whole = batch.mask is None
    observed = x.new_empty(0, 0) if batch.mask is None else batch.mask.to(x.dtype)
    support_loops.select(
        (x @ dictionary.T).numpy(),
        (model.gram() if whole else x.new_empty(0, 0)).numpy(),
        dictionary.numpy(),
        observed.numpy(),
        model.psi.reciprocal().numpy(),
        (model.mu / model.psi).numpy(),
        model.worth().numpy(),
        float(model.price),
        float(1 / model.variance),
        model.config.latents == "positive",
        index[:, 0].numpy(),
        mean[:, 0].numpy(),
        root[:, 0].numpy(),
        gain[:, 0].numpy(),
    )
    return Found(index.long(), mean, root, gain)


def select(model: SpikeSlab, batch: Batch) -> Found:
    """Return the supports of rows in fixed shapes, as a GPU needs them."""
    x, dictionary, precision = model.centred(batch), model.dictionary, 1 / model.variance
    rows, atoms, size = len(x), model.code_size, int(model.limit)
    observed = None if batch.mask is None else batch.mask.to(x.dtype)
    square = x.new_ones(1, atoms) if observed is None else observed @ dictionary.T.square()
    left = (1 / model.psi + square * precision).expand(rows, atoms)
    pull = x @ dictionary.T * precision + model.mu / model.psi
    worth, least = model.worth(), LEAST / model.psi
    first = worth - 0.5 * (1 / model.psi + precision).log()
    reached = x.new_zeros(rows, size, atoms)
    index = torch.full((rows, size), -1, dtype=torch.int64, device=x.device)
    going = torch.ones(rows, dtype=torch.bool, device=x.device)
    every = torch.arange(rows, device=x.device)
    taken = torch.zeros(rows, atoms, dtype=torch.bool, device=x.device)
    for k in range(size):
        drive = pull.clamp_min(0) if model.config.latents == "positive" else pull
        atom = (0.5 * drive.square() / left + first).masked_fill(taken, -torch.inf).argmax(1)
        room, pulled = left[every, atom], pull[every, atom]
        gain = worth[atom] - 0.5 * room.log() + 0.5 * pulled.square() / room
        going = going & (gain > model.price) & ~taken[every, atom]
        index[:, k] = atom.where(going, -1)
        taken = taken.index_put((every, atom), torch.ones_like(going))
        row = (
            model.gram()[atom] if observed is None else (dictionary[atom] * observed) @ dictionary.T
        )
        row = row * precision - torch.einsum("bk,bka->ba", reached[every, :, atom], reached)
        row = (row / room.sqrt()[:, None]).where(going[:, None], 0.0)
        reached[:, k] = row
        left = torch.maximum(left - row.square(), least)
        pull = pull - row * (pulled / room.sqrt())[:, None]
    return model.on_supports(batch, index[:, None])
