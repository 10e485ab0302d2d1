"""Commands whose process is killed, or whose disk fails, at a chosen step.

A step is a call with a permanent effect on the disk: a file is opened for writing, synced, renamed
or deleted, or a folder is created or deleted. The state before step n + 1 is the state after step
n.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.fs

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

IMPORTED = ("distvae.cli", "distvae.cli.train", "distvae.cli.restore", "tests.tiny")
"""The modules that commands import. They are imported once before commands are forked, not in each
command.
"""
AUDITED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}
"""Steps of Python that it tells of by audit events."""
NEVER = -1
LOG, STEPS = "log.txt", "steps.txt"


class Steps:
    """The steps of this process, and what happens at one of them."""

    def __init__(self, folder: Path, chosen: int, happen: Callable[[], object]) -> None:
        self.folder, self.chosen, self.happen = f"{folder}{os.sep}", chosen, happen
        self.count = 0

    def take(self) -> None:
        """Count a step, and let happen what happens before the chosen one."""
        self.count += 1
        if self.count == self.chosen:
            self.happen()

    def hear(self, event: str, values: tuple[Any, ...]) -> None:
        """Take the step of an audit event in the folder."""
        if event not in AUDITED or not isinstance(values[0], str | os.PathLike):
            return
        if os.path.abspath(values[0]).startswith(self.folder):  # noqa: PTH100
            self.take()


def watch(steps: Steps) -> None:
    """Count the steps of this process from now on."""

    class Watched(pyarrow.fs.LocalFileSystem):  # type: ignore[misc]
        def open_output_stream(self, path: str, *values: Any, **options: Any) -> Any:
            steps.take()
            return super().open_output_stream(path, *values, **options)

        def delete_file(self, path: str) -> None:
            steps.take()
            super().delete_file(path)

        def delete_dir(self, path: str) -> None:
            steps.take()
            super().delete_dir(path)

    pyarrow.fs.LocalFileSystem = Watched

    def sync(fd: "FileDescriptorLike") -> None:
        steps.take()

    os.fsync = sync
    sys.addaudithook(steps.hear)


def begin(words: Sequence[str], folder: Path) -> Callable[[], None]:
    """Go to a folder, let output go to a file there, and return a command of distvae."""
    from distvae import cli

    os.chdir(folder)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["distvae", *words]
    return cli.main


def serve(pipe: Connection, words: Sequence[str], warm: Path) -> None:
    """Run a command once, so that all it imports and compiles is there. Then do each that is
    received, in a process that is forked for it, and send its exit code.
    """
    with suppress(SystemExit):
        begin(words, warm)()
    while (order := pipe.recv()) is not None:
        if (child := os.fork()) == 0:
            run_watched(*order)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def run_watched(words: Sequence[str], folder: Path, kill_at: int, fail_at: int, error: int) -> None:
    """Run a command in a folder, write how many steps it took into a file there, and exit."""
    command = begin(words, folder)

    def fail() -> None:
        raise OSError(error, os.strerror(error))

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    steps = Steps(folder, max(kill_at, fail_at), kill if kill_at > 0 else fail)
    watch(steps)
    code: object = 1
    try:
        command()
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    (folder / STEPS).write_text(f"{steps.count}")
    os._exit(code if isinstance(code, int) else 1)


class Watched(NamedTuple):
    """The outcome of a command."""

    code: int
    steps: int
    text: str


class Server:
    """A process that runs one command again and again, each time in a process of its own."""

    def __init__(self, words: Sequence[str], warm: Path) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload([*IMPORTED, __name__])
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, words, warm))
        self.process.start()
        theirs.close()

    def run(
        self,
        words: Sequence[str],
        folder: Path,
        kill_at: int = NEVER,
        fail_at: int = NEVER,
        error: int = 0,
    ) -> Watched:
        """Run a command in a folder."""
        self.pipe.send((words, folder, kill_at, fail_at, error))
        code = self.pipe.recv()
        steps = int((folder / STEPS).read_text()) if code >= 0 else 0
        return Watched(code, steps, (folder / LOG).read_text())


@contextmanager
def serving(words: Sequence[str], warm: Path) -> Iterator[Server]:
    """Start a server that has run a command in a folder, and end it."""
    server = Server(words, warm)
    try:
        yield server
    finally:
        server.pipe.send(None)
        server.process.join()
