"""Graphs of the pretended device. While a graph is recorded, its launches are stored. Each replay
repeats them in the same memory.

As on a GPU, a recorded operation may neither wait nor copy from or to the host, and its results
mean nothing until the first replay.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves

from distvae.interface import Sums
from distvae.train.graphs import Recorder
from tests.device.pretended import (
    Pretended,
    add,
    counted,
    on_host,
    run_on_host,
    witnesses,
)


class Call(NamedTuple):
    """An operation that was asked for."""

    op: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: list[Pretended]
    """The new tensors that it fills."""


class Tape:
    """The recorded operations."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.made: dict[int, Tensor] = {}
        """The tensors that were made meanwhile, by address."""
        self.before_it: dict[int, tuple[Tensor, torch.UntypedStorage]] = {}
        """The tensors that were there before and were changed, with their values."""

    def before(self, op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the values that the operation changes, because recording has no effect yet."""
        for tensor in _written(op, args, kwargs):
            address = _address(tensor)
            if address not in self.made and address not in self.before_it:
                storage = tensor.held.untyped_storage()
                self.before_it[address] = (tensor.held, storage.clone())

    def after(
        self, op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: object
    ) -> None:
        """Keep the operation."""
        given = {_address(leaf) for leaf in _tensors((args, kwargs))}
        new = [leaf for leaf in _tensors(out) if _address(leaf) not in given]
        self.made |= {_address(leaf): leaf.held for leaf in new}
        self.calls.append(Call(op, args, kwargs, new))

    def finish(self) -> None:
        """Undo the recorded operations."""
        for held, storage in self.before_it.values():
            held.untyped_storage().copy_(storage)
        for held in self.made.values():
            if held.is_floating_point():
                held.fill_(torch.nan)

    def replay(self) -> None:
        """Do everything again."""
        add("kernels", "replay")
        for op, args, kwargs, new in self.calls:
            found = run_on_host(op, args, on_host(kwargs))
            leaves = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
            if new:
                for memory, values in zip(new, leaves, strict=True):
                    memory.held.copy_(values)


def record(work: Callable[[], Sums]) -> tuple[Tape, Sums]:
    """Record what a function launches."""
    tape = Tape()
    witnesses.append(tape)
    try:
        with counted() as counts:
            sums = work()
    finally:
        witnesses.remove(tape)
    tape.finish()
    refused = counts.to_device + counts.to_host + counts.waits
    if refused:
        raise RuntimeError(f"operation not permitted when stream is capturing: {refused}")
    return tape, sums


def recorder_of(device: torch.device) -> Recorder | None:
    """Return what records steps on the pretended device."""
    return None if device.type == "cpu" else record


def _address(tensor: Pretended) -> int:
    return tensor.held.untyped_storage().data_ptr()


def _tensors(values: object) -> list[Pretended]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Pretended)]


def _written(op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Pretended]:
    """Yield what an operation changes."""
    for place, known in enumerate(op._schema.arguments):
        if known.is_write:
            value = args[place] if place < len(args) else kwargs.get(known.name)
            yield from _tensors(value)
