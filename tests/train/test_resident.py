"""Rows read at once equal rows read batch by batch."""

from functools import partial

import numpy as np
import pytest
import torch

from distvae.numerics.rows import Bands, Lanes, RowNumbers
from distvae.train import batches as reading
from distvae.train.batches import Batches, BatchReader, DeviceReader

CPU = torch.device("cpu")
EVERY = Lanes(50, 2).held()


def batches_of(rows: RowNumbers, size: int) -> Batches:
    """Return the batches of one worker, of rows in this order."""
    return Batches(lambda first, last: rows[first:last], len(rows), size)


@pytest.mark.parametrize("share", [0.5, 0.0])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("numbered", [1, 30])
def test_batches_and_their_draws(
    monkeypatch: pytest.MonkeyPatch, share: float, missing: bool, numbered: int
) -> None:
    monkeypatch.setattr(reading, "SHARE", share)
    monkeypatch.setattr(reading, "NUMBERED", numbered)
    monkeypatch.setattr(reading, "free_memory", lambda device: 1e9)
    chance = np.random.default_rng(0)
    data = chance.random((50, 3), dtype=np.float32)
    data[chance.random(data.shape) < 0.2 * missing] = np.nan
    reader, plain = DeviceReader(1, CPU, missing), BatchReader(1, CPU, missing)
    reader.keep(data, EVERY, 3, None, 1)
    assert (reader.resident is None) == (share == 0)
    order = chance.permutation(50)
    batches = np.split(order, range(8, 50, 8))
    reader.begin_epoch(4, batches_of(order, 8))
    for number, rows in enumerate(batches):
        reader.advance(number)
        together = np.concatenate(batches[number : number - number % 3 + 3])
        for wanted in (rows, together):
            (found, noise), (expected, alone) = (r.read(data, wanted, 4) for r in (reader, plain))
            assert torch.equal(found.x, expected.x)
            assert torch.equal(found.row, expected.row)
            assert (found.mask is None) == (expected.mask is None) == (not missing)
            if found.mask is not None and expected.mask is not None:
                assert torch.equal(found.mask, expected.mask)
            assert torch.equal(noise.normal("slab", 2), alone.normal("slab", 2))
        assert len(reader.chunks) <= 2
    for rows, epoch in ((np.array([9, 3]), 4), (batches[0], 1), (np.arange(0), 4)):
        batch, noise = reader.read(data, rows, epoch)
        np.testing.assert_array_equal(batch.row.numpy(), rows)
        assert noise.epoch == epoch
        assert torch.equal(noise.row, torch.from_numpy(rows))


def test_rows_that_find_no_room_are_read_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "free_memory", lambda device: 1e9)

    def full(self: torch.Tensor, *size: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.Tensor, "new_empty", full)
    data = np.random.default_rng(0).random((20, 3), dtype=np.float32)
    reader = DeviceReader(1, CPU, False)
    reader.keep(data, EVERY, 2, None, 1)
    assert reader.resident is None
    reader.begin_epoch(0, batches_of(np.arange(20), 4))
    reader.advance(0)
    np.testing.assert_array_equal(reader.read(data, np.arange(4), 0)[0].x.numpy(), data[:4])


@pytest.mark.parametrize("lanes", [Lanes(50, 4), Bands(50, 4)], ids=["lanes", "bands"])
def test_each_worker_copies_its_own_rows_alone(
    monkeypatch: pytest.MonkeyPatch, lanes: Lanes
) -> None:
    data, sizes = np.random.default_rng(0).random((50, 3), dtype=np.float32), []
    for rank in range(2):
        held = lanes.held(rank, 2)
        monkeypatch.setattr(
            reading, "free_memory", partial(lambda free, device: free, 24 * len(held))
        )
        reader, order = DeviceReader(1, CPU, False), held.order(0, 1)
        reader.keep(data, held, 3, None, 1)
        assert reader.resident is not None, "half of the memory suffices"
        sizes.append(len(reader.resident))
        reader.begin_epoch(1, Batches(order, 50, 8))
        for number in range(7):
            reader.advance(number)
            rows = order(8 * number, min(8 * number + 8, 50))
            found = reader.read(data, rows, 1)[0].x
            np.testing.assert_array_equal(found.numpy(), data[rows])
    assert sum(sizes) == 50
