"""An object store on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from distvae.files.storage import Folder


@contextmanager
def object_store(secret: str) -> Iterator[str]:
    """Yield the URI of a folder in an empty bucket, with its password."""
    pytest.importorskip("moto", reason="moto, which plays an object store, is not installed")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = (
        f"scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
    )
    Folder(f"s3://key:{secret}@bucket?{options}").system.create_dir("bucket")
    yield f"s3://key:{secret}@bucket/runs?{options}"
    server.stop()
