"""Requests to Ray's autoscaler for machines."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

AGAIN = 30.0
"""Seconds between two calls for machines that are still to come."""


@contextmanager
def requested_resources(each: Mapping[str, float], count: int) -> Iterator[None]:
    """Ask Ray's autoscaler for room for so many of these, until left; without one nobody hears it.

    It is asked again and again, for one that is started anew has forgotten what was asked of it.
    """
    from ray.autoscaler.sdk import request_resources

    bundles, over = (
        [{name: amount for name, amount in each.items() if amount}] * count,
        threading.Event(),
    )

    def again() -> None:
        while not over.wait(AGAIN):
            with suppress(Exception):  # it is being started; the next call comes soon
                request_resources(bundles=bundles)

    request_resources(bundles=bundles)
    calling = threading.Thread(target=again, daemon=True)
    calling.start()
    try:
        yield
    finally:
        over.set()
        calling.join()
        request_resources(bundles=[])
