"""The laws of E-steps, in addition to those that their posteriors keep with a model."""

import tempfile

import torch

from distvae.interface import Persistent, Posterior, Searches, prepare
from distvae.numerics.lanes import Lanes
from distvae.numerics.noise import Noise
from distvae.testing.case import Case, Law


@torch.no_grad()
def inference_keeps_nothing(case: Case) -> None:
    """Posteriors of new data leave those of rows in training as they are."""
    before = case.q.code
    case.estep.infer(case.model, case.batch)
    assert torch.equal(before, case.q.code)


@torch.no_grad()
def inference_without_sweeps_is_that_of_training(case: Case) -> None:
    """Without sweeps, rows in training have the posteriors that training uses."""
    q = case.estep.infer(case.model, case.batch, 0)
    assert isinstance(q, Posterior)
    torch.testing.assert_close(q.code, case.q.code)


@torch.no_grad()
def inference_is_repeatable(case: Case) -> None:
    """Rows have the same posteriors whenever they are asked for."""
    one = case.estep.infer(case.model, case.batch).code
    assert torch.equal(one, case.estep.infer(case.model, case.batch).code)


@torch.no_grad()
def a_search_never_lowers_a_bound(case: Case) -> None:
    """Under fixed parameters a searched block is bounded at least as well as before."""
    if not isinstance(case.estep, Searches):
        return
    assert case.estep.block_size > 0
    search = case.estep
    before = case.model.bound(case.batch, case.q, case.noise)
    for epoch in range(3):
        search.search_block(case.model, case.batch, Noise(0, epoch, case.batch.row))
        after = case.model.bound(case.batch, case.q, case.noise)
        assert (after >= before - 1e-4).all()
        before = after


@torch.no_grad()
def the_state_survives_saving_and_loading(case: Case) -> None:
    """An E-step that loads what another saved has the same posteriors."""
    if not isinstance(case.estep, Persistent):
        return
    if isinstance(case.estep, Searches):
        case.estep.search_block(case.model, case.batch, case.noise)
    _, other = case.assemble()
    prepare(other, [case.batch.x], Lanes(len(case.batch.x), 1).held(), 1)
    assert isinstance(other, Persistent)
    with tempfile.TemporaryDirectory() as folder:
        other.load(folder, case.estep.save(folder, "1"))
    found = other(case.model, case.batch).code
    torch.testing.assert_close(found, case.q.code)


ESTEP_LAWS: tuple[Law, ...] = (
    inference_keeps_nothing,
    inference_without_sweeps_is_that_of_training,
    inference_is_repeatable,
    a_search_never_lowers_a_bound,
    the_state_survives_saving_and_loading,
)
