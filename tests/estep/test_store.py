"""Populations on disk: what comes back is what went in, or a refusal."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from distvae.estep.store import LocalStore
from distvae.refusal import Refusal


def words(seed: int = 0) -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (10, 4, 3), generator=torch.Generator().manual_seed(seed))


def test_rows_come_back_as_they_were_put() -> None:
    store, rows = LocalStore(words()), torch.tensor([7, 2, 5])
    store.put(rows, words(1)[:3])
    assert torch.equal(store.get(rows), words(1)[:3])
    others = torch.tensor([0, 1, 3, 4, 6, 8, 9])
    assert torch.equal(store.get(others), words()[others])


def test_the_file_gives_back_every_bit(tmp_path: Path) -> None:
    checksum = LocalStore(words()).save(tmp_path / "a.arrow")
    assert torch.equal(LocalStore.load(tmp_path / "a.arrow", checksum).words, words())
    assert [file.name for file in tmp_path.iterdir()] == ["a.arrow"]


def test_the_checksum_tells_contents_apart(tmp_path: Path) -> None:
    one, other, again = (LocalStore(words(seed)).save(tmp_path / f"{i}") for i, seed in enumerate((0, 1, 0)))
    assert one == again != other


@pytest.mark.parametrize("place", [0, 200, -100])
def test_an_altered_file_is_refused(tmp_path: Path, place: int) -> None:
    path = tmp_path / "a.arrow"
    checksum = LocalStore(words()).save(path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(Refusal, match="altered or damaged"):
        LocalStore.load(path, checksum)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="missing"):
        LocalStore.load(tmp_path / "a.arrow", "")
