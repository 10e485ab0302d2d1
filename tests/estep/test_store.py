"""Populations on disk: what comes back is what went in, or a refusal."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from distvae import config
from distvae.estep import store
from distvae.estep.store import LocalStore, room
from distvae.estep.truncated import RandomSearch
from distvae.refusal import Refusal
from tests import dense


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


def test_a_mapped_file_holds_what_memory_would_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mapped = LocalStore(room(10, 4, 3, str(tmp_path)))
    mapped.put(torch.arange(10), words())
    assert torch.equal(mapped.get(torch.tensor([3, 1])), words()[[3, 1]])
    assert not list(tmp_path.iterdir())
    checksum = mapped.save(tmp_path / "a.arrow")
    again = LocalStore.load(tmp_path / "a.arrow", checksum, str(tmp_path))
    assert torch.equal(again.words, words())
    assert [file.name for file in tmp_path.iterdir()] == ["a.arrow"]


def test_a_file_of_many_parts_gives_back_every_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PART", 3)
    checksum = LocalStore(words()).save(tmp_path / "a.arrow")
    assert torch.equal(LocalStore.load(tmp_path / "a.arrow", checksum).words, words())


def test_populations_that_do_not_fit_are_refused_with_what_they_need() -> None:
    with pytest.raises(Refusal, match=r"64 states for 1,000,000,000,000 rows need 4096000\.0 GB.*estep.mapped"):
        room(10**12, 64, 8)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"estep\.mapped"):
        room(10, 4, 3, str(tmp_path / "nowhere"))


def test_a_trainings_result_is_the_same_with_mapped_populations(tmp_path: Path) -> None:
    batch = dense.rows(20, dense.model(latent=70))
    held, mapped = (RandomSearch(config.RandomSearch(states=10, mapped=folder), 70) for folder in (None, str(tmp_path)))
    for search in (held, mapped):
        search.begin([batch.x], 20, 0)
    assert torch.equal(held.store.get(batch.row), mapped.store.get(batch.row))
