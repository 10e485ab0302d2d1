"""A pretended device: its tensors hold their values on the host, and refuse the operations that
tensors of a GPU refuse.

They cannot be combined with host tensors, except single numbers and indices, and cannot become
NumPy arrays. Launches, copies and waits are counted. The values come from the CPU's own operations,
so results may be compared closely.

Registering a device cannot be undone in a process. The device is therefore registered on first use,
and outside of `present` torch is told that no device of this kind is available. While it is present
the calling thread computes gradients, because autograd's own threads exist only for the earlier
devices.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor, library
from torch._ops import OpOverload
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "pretended"
CPU = torch.device("cpu")

MADE = (
    "empty.memory_format",
    "empty_strided",
    "arange",
    "arange.start",
    "arange.start_step",
    "eye",
    "eye.m",
)
"""What makes tensors from none; everything else that does is composed of these."""
OTHERS = ("triu_indices", "copy_")
"""What the device has to be able to do where torch asks it without regard to subclasses."""
COPIED = ("copy_", "_to_copy", "_local_scalar_dense")
"""What copies, between host and device or on the device."""
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
"""What takes indices, which may be on the host: they are copied."""
WAITED_FOR = frozenset(
    (
        "bincount",
        "equal",
        "masked_select",
        "nonzero",
        "_unique2",
        "unique_consecutive",
        "unique_dim",
    )
)
"""What answers, or knows the size of its result, only when all that was launched before is done."""


@dataclass(eq=False)
class Counts:
    """Counts of requests to the device, by operation."""

    kernels: Counter[str] = field(default_factory=Counter)
    """Launched: what computes, views left out. An operation may be several kernels of a real
    device.
    """
    to_device: Counter[str] = field(default_factory=Counter)
    """Copies from the host, which wait as well unless they are asked not to block."""
    to_host: Counter[str] = field(default_factory=Counter)
    """Copies to the host, each of which waits."""
    waits: Counter[str] = field(default_factory=Counter)
    """Forced synchronisations: the host waits for what the device computes."""
    bytes: Counter[str] = field(default_factory=Counter)
    """Of the copies, `to_device` and `to_host`."""


_counting: list[Counts] = []
_present = False


class Pretended(torch.Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls: type["Pretended"], held: Tensor) -> "Pretended":
        made: Pretended = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            held.stride(),
            held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def __init__(self, held: Tensor) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[Any, Any] | None = None,
    ) -> Any:
        return _run(func, *args, **(kwargs or {}))

    def __repr__(self, **options: object) -> str:  # type: ignore[override]
        return f"Pretended({self.held!r})"


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a kind of device."""

    def is_available(self) -> bool:
        return _present

    def device_count(self) -> int:
        return int(_present)


class _Hook(backend_registration._DummyPrivateUse1Hook):
    """The same, asked from below."""

    def is_available(self) -> bool:
        return _present


@lru_cache
def _registered() -> library.Library:
    """Make the device known to torch, once in a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module(), _Hook())
    overrides = library.Library("aten", "IMPL")
    for name in (*MADE, *OTHERS):
        packet, _, overload = name.partition(".")
        op = getattr(getattr(torch.ops.aten, packet), overload or "default")
        overrides.impl(name, partial(_run, op), "PrivateUse1")
    return overrides


@contextmanager
def present() -> Iterator[torch.device]:
    """Let there be the device."""
    global _present
    _registered()
    _present = True
    try:
        with torch.autograd.set_multithreading_enabled(False):
            yield torch.device(NAME, 0)
    finally:
        _present = False


@contextmanager
def counted() -> Iterator[Counts]:
    """Count the requests to the device inside the block."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting.remove(counts)


class Witness(Protocol):
    """An observer that is called before and after each operation."""

    def before(self, op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Observe an operation before it runs."""

    def after(
        self, op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], out: object
    ) -> None:
        """See the result."""


witnesses: list[Witness] = []
"""Those who look on now."""


def _run(op: OpOverload, *args: Any, **kwargs: Any) -> Any:
    """Run an operation on the values of its tensors, with witnesses."""
    for witness in witnesses:
        witness.before(op, args, kwargs)
    out = _answer(op, args, kwargs)
    for witness in witnesses:
        witness.after(op, args, kwargs, out)
    return out


def _answer(op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = op.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if name in COPIED:
        _note_copy(name, args, kwargs)
    else:
        _refuse_mixed(op, name, args, tensors)
        _note(op, name, args)
    options = on_host(kwargs)
    out = run_on_host(op, args, options)
    if _to_host(kwargs):
        return out
    return _wrapped(out, tensors)


def run_on_host(op: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on the values that are held."""
    return op(*tree_map_only(Pretended, _held, args), **tree_map_only(Pretended, _held, kwargs))


def _held(tensor: Pretended) -> Tensor:
    return tensor.held


def _to_host(kwargs: dict[str, Any]) -> bool:
    """Return whether the host is asked for."""
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"


def on_host(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what asks for the host where the device is asked for."""
    options = kwargs | ({"device": CPU} if kwargs.get("device") is not None else {})
    return {name: value for name, value in options.items() if name != "pin_memory"}


def _wrapped(out: Any, given: Sequence[Tensor]) -> Any:
    """Return the results as tensors of the device. An operation that returns its argument returns
    the given tensor.
    """
    known = {
        id(tensor.held if isinstance(tensor, Pretended) else tensor): tensor for tensor in given
    }
    return tree_map_only(
        Tensor, lambda tensor: known[id(tensor)] if id(tensor) in known else Pretended(tensor), out
    )


def _refuse_mixed(
    op: OpOverload, name: str, args: Sequence[Any], tensors: Sequence[Tensor]
) -> None:
    """Refuse a mix of host tensors and device tensors, except single numbers that are read."""
    strangers = [tensor for tensor in tensors if not isinstance(tensor, Pretended)]
    if len(strangers) == len(tensors):
        return
    if name in INDEXED and isinstance(args[0], Pretended):
        strangers = [
            value
            for value in args[2:3]
            if isinstance(value, Tensor) and not isinstance(value, Pretended)
        ]
    written = [
        arg for arg, known in zip(args, op._schema.arguments, strict=False) if known.is_write
    ]
    if any(
        tensor.dim() or any(tensor is arg for arg in tree_leaves(written)) for tensor in strangers
    ):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {NAME}:0 and cpu ({op})"
        )


def _note_copy(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Count a copy between host and device, or on the device."""
    target, source = args[0], args[1] if name == "copy_" else args[0]
    to_host = not isinstance(target, Pretended) or name == "_local_scalar_dense" or _to_host(kwargs)
    if not isinstance(source, Pretended):
        _transfer("to_device", name, source)
        if not (kwargs.get("non_blocking") or any(args[2:])):
            add("waits", name)
    elif to_host:
        _transfer("to_host", name, source)
        add("waits", name)
    else:
        add("kernels", name)


def _note(op: OpOverload, name: str, args: Sequence[Any]) -> None:
    """Count launches and waits."""
    if op.is_view or name in ("empty", "empty_strided", "lift_fresh"):
        return
    add("kernels", name)
    indices = [index for index in args[1] if index is not None] if name in INDEXED else []
    for index in indices:
        if not isinstance(index, Pretended):
            _transfer("to_device", name, index)
            add("waits", name)
    if name in WAITED_FOR or any(index.dtype == torch.bool for index in indices):
        add("waits", name)


def _transfer(way: str, name: str, tensor: Tensor) -> None:
    add(way, name)
    add("bytes", way, tensor.numel() * tensor.element_size())


def add(what: str, name: str, count: int = 1) -> None:
    for counts in _counting:
        getattr(counts, what)[name] += count


@dataclass(frozen=True)
class Machine:
    """A machine that has the device: `auto` takes it, `cpu` does not."""

    device: torch.device
    counted: Callable[[], Any] = counted

    def of(self, name: str, assigned: Sequence[int] | None = None) -> torch.device:
        """Return the device of a name, whatever Ray assigned."""
        return CPU if name == "cpu" else self.device
