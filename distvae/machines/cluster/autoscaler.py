"""Requests to Ray's autoscaler for machines."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

REQUEST_INTERVAL = 30.0
"""Seconds between two requests for machines that have not arrived."""


@contextmanager
def requested_resources(bundle: Mapping[str, float], count: int) -> Iterator[None]:
    """Request `count` bundles from Ray's autoscaler while the context is open.

    Has no effect without an autoscaler. The request is repeated, because an autoscaler that was
    restarted has forgotten it.
    """
    from ray.autoscaler.sdk import request_resources

    needed = {name: amount for name, amount in bundle.items() if amount}
    bundles = [needed] * count
    closed = threading.Event()

    def repeat_request() -> None:
        while not closed.wait(REQUEST_INTERVAL):
            with suppress(Exception):  # the autoscaler is restarting; the next request comes soon
                request_resources(bundles=bundles)

    request_resources(bundles=bundles)
    repeating = threading.Thread(target=repeat_request, daemon=True)
    repeating.start()
    try:
        yield
    finally:
        closed.set()
        repeating.join()
        request_resources(bundles=[])
