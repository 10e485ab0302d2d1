"""Repositories of the Hugging Face hub, through its own package."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.files.refusal import Refusal
from distvae.files.untrusted import error_text
from distvae.share.names import CARD, LISTED, SUMS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB = "hf://"
FORM = re.compile(r"hf://([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w-][\w./-]*))?")
"""The name of a repository, and the revision after an @."""


class Repository:
    """A repository with one model. The hub's package finds the token and the address."""

    def __init__(self, uri: str) -> None:
        found = FORM.fullmatch(uri)
        if not found:
            raise Refusal(f"{uri}: hf://OWNER/NAME, or hf://OWNER/NAME@REVISION, expected")
        self.uri, self.name, self.revision = uri, found[1], found[2]

    def __str__(self) -> str:
        return self.uri

    def read(self, name: str) -> bytes:
        """Return the content of a file, which the hub's package keeps in its cache."""
        with self._reached(name) as api:
            path = api.hf_hub_download(self.name, name, revision=self.revision)
        return Path(path).read_bytes()

    def write(self, files: Mapping[str, bytes], force: bool) -> None:
        """Write the files of a model in one commit. A new repository is private."""
        with self._reached() as api:
            from huggingface_hub import CommitOperationAdd, CommitOperationDelete

            api.create_repo(self.name, private=True, exist_ok=True)
            former = {SUMS, CARD, *LISTED} & {
                *api.list_repo_files(self.name, revision=self.revision)
            }
            if former and not force:
                raise Refusal(f"{self}: exists; another name, or --force to replace it, expected")
            api.create_commit(
                self.name,
                [
                    *(CommitOperationAdd(name, content) for name, content in files.items()),
                    *(CommitOperationDelete(name) for name in sorted(former - files.keys())),
                ],
                commit_message="Push a model of distvae",
                revision=self.revision,
            )

    @contextmanager
    def _reached(self, name: str = "") -> "Iterator[HfApi]":
        """Yield the hub's interface, and turn its errors into refusals."""
        named = f"{self}/{name}" if name else str(self)
        try:
            from huggingface_hub import HfApi

            yield HfApi()
        except Refusal:
            raise
        except ImportError as error:
            raise Refusal(
                f"{named}: the package huggingface_hub is missing; 'pip install huggingface_hub'"
                " expected"
            ) from error
        except Exception as error:  # it has errors of its own, and of the network
            raise Refusal(
                f"{named}: {error_text(error)}; a repository that can be reached expected"
            ) from error
