"""Compile loops over arrays on their first call, and tell the user about the wait."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import event

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function for the types of its first call, and keep the machine code on disk.

    Division by zero gives infinity. Sums may be reordered, so that they can be vectorised.
    """
    options: Any = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
    try:
        return cast(F, njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:  # neither this package nor the user's cache can be written into
        return cast(F, njit(nogil=True, **options)(function))


def inlined(function: F) -> F:
    """Compile a function inline into its callers."""
    return cast(F, njit(inline="always", error_model="numpy")(function))


class _Compilation(event.Listener):
    """Prints one line when the first loop of this package is compiled."""

    said = False

    def on_start(self, event: event.Event) -> None:
        """Print a line when the first compilation begins."""
        function = event.data["dispatcher"].py_func
        if self.said or not function.__module__.startswith("distvae."):
            return
        self.said = True
        print(
            "distvae: compiling loops for this processor; it takes some 20 seconds, once",
            file=sys.stderr,
            flush=True,
        )

    def on_end(self, event: event.Event) -> None:
        """Do nothing."""


_listen: Callable[[str, event.Listener], None] = event.register
_listen("numba:compile", _Compilation())
