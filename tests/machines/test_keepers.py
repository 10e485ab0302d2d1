"""Who keeps whose copy, and which copies a training goes on from."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from distvae.machines.copies.assignment import (
    FormerCopies,
    assign_keepers,
    find_former_copies,
    machines_for_more,
)
from distvae.machines.copies.keeper import KnownCopy

machines = st.sampled_from("ABC")


def firsts(
    workers: list[str], keepers: list[str | None], before: list[list[int]] | None = None
) -> list[int]:
    """Choose keepers, and return the first one of each worker."""
    return [own[0] if own else -1 for own in assign_keepers(workers, keepers, before or ())]


def together(workers: list[str], keepers: list[str | None], chosen: list[int]) -> int:
    """Count the workers whose keeper is on their machine, or gone, or none (-1)."""
    pairs = zip(workers, chosen, strict=True)
    return sum(k < 0 or keepers[k] in (worker, None) for worker, k in pairs)


@given(st.lists(st.tuples(machines, machines), min_size=1, max_size=5))
def test_no_other_choice_has_fewer_workers_beside_their_keeper(
    pairs: list[tuple[str, str]],
) -> None:
    workers = [worker for worker, _ in pairs]
    keepers: list[str | None] = [keeper for _, keeper in pairs]
    chosen = firsts(workers, keepers)
    assert sorted(chosen) == list(range(len(workers)))
    best = min(together(workers, keepers, list(k)) for k in permutations(range(len(workers))))
    assert together(workers, keepers, chosen) == best


@given(st.lists(machines, min_size=2, max_size=6).filter(lambda found: len(set(found)) > 1))
def test_holders_stay_where_nothing_is_gained(workers: list[str]) -> None:
    keepers: list[str | None] = list(workers)
    first = assign_keepers(workers, keepers)
    assert assign_keepers(workers, keepers, first) == first


@given(
    st.lists(machines, min_size=1, max_size=4),
    st.lists(machines, min_size=1, max_size=5),
    st.data(),
)
def test_the_fewest_workers_are_beside_their_keeper_also_with_other_numbers_of_keepers(
    workers: list[str], kept: list[str], data: st.DataObject
) -> None:
    keepers: list[str | None] = list(kept)
    some = st.integers(0, len(keepers) - 1)
    own = st.lists(some, max_size=2)
    before = data.draw(st.lists(own, min_size=len(workers), max_size=len(workers)))
    chosen = firsts(workers, keepers, before)
    if len(keepers) >= len(workers):
        assert len(set(chosen)) == len(workers)
        choices = permutations(range(len(keepers)), len(workers))
        assert together(workers, keepers, chosen) == min(
            together(workers, keepers, list(k)) for k in choices
        )


@given(
    st.lists(machines, min_size=1, max_size=4),
    st.lists(machines, min_size=1, max_size=4),
    st.sets(machines, min_size=1),
)
def test_new_keepers_part_all_workers_from_theirs_where_there_are_two_machines(
    workers: list[str], keepers: list[str], known: set[str]
) -> None:
    present = sorted(known | set(workers) | set(keepers))
    more = machines_for_more(workers, keepers, present)
    held: list[str | None] = [*keepers, *more]
    if len(present) > 1:
        assert together(workers, held, firsts(workers, held)) == 0
        for lost in present:
            left = [{held[k] for k in own} - {lost} for own in assign_keepers(workers, held)]
            assert all(left), f"no copy of a worker is left without {lost}"
        assert machines_for_more(workers, [str(name) for name in held], present) == []
    assert len(more) <= 2 * len(workers)
    if len(present) == 1:
        assert more == []


@given(st.lists(st.lists(machines, max_size=3), min_size=1, max_size=4), st.data())
def test_no_keeper_has_two_workers(kept: list[list[str]], data: st.DataObject) -> None:
    keepers: list[str | None] = [name for own in kept for name in own]
    workers = data.draw(st.lists(machines, min_size=1, max_size=4))
    holders = assign_keepers(workers, keepers)
    chosen = [k for own in holders for k in own]
    assert len(set(chosen)) == len(chosen)
    assert sum(map(bool, holders)) == min(len(workers), len(keepers))


def test_workers_keep_both_of_their_keepers() -> None:
    workers, keepers = ["A", "A", "B"], ["B", "A", "A", "A", "B", "B"]
    before = [[5, 3], [0, 1], [2, 4]]
    assert assign_keepers(workers, keepers, before) == before


def test_no_keeper_is_started_without_need() -> None:
    assert machines_for_more(["A", "B"], ["A", "B", "B", "A"], ["A", "B", "C"]) == []
    assert machines_for_more(["A", "B"], ["A", "B"], ["A", "B", "C"]) == ["A", "B"]
    # The one beside the worker, which was the only one, becomes the second.
    assert machines_for_more(["A"], ["A"], ["A", "B"]) == ["B"]
    assert machines_for_more(["A", "A", "B"], ["A", "B", "A"], ["A", "B"]) == ["B", "A", "B"]


def test_a_keeper_that_is_gone_keeps_nothing_while_another_is_free() -> None:
    assert assign_keepers(["A", "B"], [None, "B", "A"]) == [[1], [2]]
    # A keeper has one copy: two workers would overwrite each other's.
    assert assign_keepers(["A", "B"], ["B", None]) == [[0], [1]]
    assert sorted(assign_keepers(["A", "B"], [None, None])) == [[0], [1]]


def copy(incarnation: str, rank: int, *batches: int, tensors: bool = True) -> KnownCopy:
    return KnownCopy(incarnation, rank, 2, [(1, batch) for batch in batches], tensors)


def test_training_goes_on_from_the_last_point_that_all_copies_of_an_incarnation_have() -> None:
    lagging = [[copy("a", 1, 2, 3)], [copy("a", 0, 2, 3, 4, tensors=False)]]
    assert find_former_copies(lagging) == FormerCopies("a", (1, 3), [[1], [0]], 1)
    # The copies of the next incarnation are not complete yet.
    lagging[0].append(copy("b", 0, 5))
    assert find_former_copies(lagging) == FormerCopies("a", (1, 3), [[1], [0]], 1)
    lagging[1].append(copy("b", 1, 5))
    assert find_former_copies(lagging) == FormerCopies("b", (1, 5), [[0], [1]], 0)


def test_a_worker_goes_on_from_the_better_of_two_copies() -> None:
    left, reached, other = copy("a", 0, 2, 3, 4), copy("a", 0, 5), copy("a", 1, 3, 4, 5)
    assert find_former_copies([[left], [reached], [other]]) == FormerCopies(
        "a", (1, 5), [[1], [2]], 0
    )
    other = copy("a", 1, 2, 3, 4)
    assert find_former_copies([[left], [reached], [other]]) == FormerCopies(
        "a", (1, 4), [[0], [2]], 0
    )
    both = copy("a", 0, 3, 4)
    assert find_former_copies([[left], [both], [other]]) == FormerCopies(
        "a", (1, 4), [[0, 1], [2]], 0
    )


def test_there_are_no_former_copies_if_a_copy_or_the_parameters_are_lost() -> None:
    assert find_former_copies([]) is None
    assert find_former_copies([[copy("a", 0, 1)], []]) is None
    assert find_former_copies([[copy("a", 0, 1)], [copy("a", 1, 2)]]) is None
    without = [[copy("a", 0, 1, tensors=False)], [copy("a", 1, 1, tensors=False)]]
    assert find_former_copies(without) is None
