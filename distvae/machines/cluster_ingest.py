"""An ingest that the machines of a Ray cluster carry out together.

A task is what a local process would do, on storage that all machines share, so the files are the
same. What was done is on that storage: a task that was lost is done again by another machine.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from distvae.data.tables.plan import Plan, Source
from distvae.data.tables.processes import KeptRefusal, answered
from distvae.data.tables.work import Task, Work
from distvae.files.memory import gigabytes
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder
from distvae.machines.cluster.autoscaler import requested_resources
from distvae.machines.cluster.cluster_check import check_cluster
from distvae.machines.cluster.node_watch import Machines, NodeWatch
from distvae.machines.cluster.nodes import (
    Machine,
    live_machines,
    live_nodes,
    node_addresses,
    run_on_nodes,
)
from distvae.machines.cluster.pings import Pings
from distvae.machines.ray_api import ObjectRef, RayApi, RemoteMethod

POLL_SECONDS = 0.5
"""Seconds between two looks at what was done, and at the machines."""
RETRIES = 10
"""Times that a task is begun again whose process or machine was lost."""
END_SECONDS = 30.0
"""Seconds in which processes end that are told to."""


@dataclass(frozen=True)
class ClusterMachines:
    """The machines of a running Ray."""

    ray: RayApi
    wait: float = 0.0
    """Seconds to wait for a machine that has not joined."""

    def check(self, plan: Plan, out: Path) -> None:
        """Refuse machines that have no room or do not see the sources and the place of `out`."""
        self._wait_for_room(plan.memory)
        check_cluster(self.ray, Folder(out.parent), "an OUT on a shared disk")
        refuse_unseen(node_addresses(self.ray), plan.sources)

    def _wait_for_room(self, memory: int) -> None:
        """Wait until a machine can do a task; refuse if none can."""
        deadline = time.monotonic() + self.wait
        request = requested_resources({"CPU": 1, "memory": memory}, 1)
        with request if self.wait else nullcontext():
            while not _has_room(self.ray, memory):
                if time.monotonic() >= deadline:
                    raise Refusal(
                        f"--address: no machine of that Ray has a processor and {gigabytes(memory)}"
                        " of memory; one that has, or --wait SECONDS for it to come, expected"
                    )
                time.sleep(POLL_SECONDS)

    @contextmanager
    def start(self, work: Work, tasks: int) -> Iterator["ClusterPool"]:
        """Yield what does tasks on the machines; none of them goes on after the block."""
        import ray

        remote: RemoteMethod = ray.remote(do_task)
        needed = {"num_cpus": 1, "memory": work.plan.memory}
        spread = {"max_retries": RETRIES, "scheduling_strategy": "SPREAD"}
        with NodeWatch(lambda: live_machines(self.ray), IngestOutlook(), Pings()) as watch:
            pool = ClusterPool(ray.put(work), remote.options(**needed, **spread), watch)
            try:
                yield pool
            finally:
                pool.cancel()


class ClusterPool:
    """Tasks on the machines of a cluster, and news of these machines."""

    def __init__(self, work: ObjectRef, remote: RemoteMethod, watch: NodeWatch) -> None:
        self.work, self.remote, self.watch = work, remote, watch
        self.pending = list[ObjectRef]()

    def results(self, tasks: Sequence[Task]) -> Iterator[int]:
        """Yield the rows of each task as it is done. Those that wait call for machines."""
        import ray

        self.pending = [self.remote.remote(self.work, task) for task in tasks]
        while self.pending:
            done, self.pending = ray.wait(self.pending, timeout=POLL_SECONDS)
            for sentence in self.watch.take_messages():
                print(f"distvae: {sentence}", file=sys.stderr, flush=True)
            yield from map(_received, done)

    def cancel(self) -> None:
        """End the tasks that are not done, and wait until they have ended."""
        import ray

        for ref in self.pending:
            ray.cancel(ref, force=True)
        if self.pending:
            ray.wait(self.pending, num_returns=len(self.pending), timeout=END_SECONDS)


@dataclass(frozen=True)
class IngestOutlook:
    """Effect of lost machines on an ingest."""

    def shortage(self) -> str:
        """Return nothing: tasks wait for as long as there is no room."""
        return ""

    def after_loss(self, name: str, machine: Machine, left: Machines) -> str:
        """Return who does what the machine has not done."""
        return f"; {_who_goes_on(left)}"

    def while_silent(self, name: str, machine: Machine, left: Machines) -> str:
        """Return what is waited for."""
        if machine.is_head:
            return "; Ray's head is there: if it stays away, the same command with --resume goes on"
        return f"; unless it answers, {_who_goes_on(left)}"


def _who_goes_on(left: Machines) -> str:
    if any(machine.cpus >= 1 for machine in left.values()):
        return "other machines do what it has not done"
    return "no other has a processor, so a machine is waited for that has"


def do_task(work: Work, task: Task) -> int | Exception:
    """Do a task on the machine that is chosen for it; return how many rows it was about."""
    return answered(work.do, task)


def _received(ref: ObjectRef) -> int:
    """Return what a task has answered, or raise what it raised."""
    import ray
    from ray.exceptions import RayError

    try:
        answer: int | Exception = ray.get(ref)
    except RayError as error:
        raise KeptRefusal(
            f"--address: {RETRIES} machines or processes that did a task were lost"
            f" ({cause(error)[:200]}); machines with more memory expected, with --resume to keep"
            " what is done"
        ) from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _has_room(ray: RayApi, memory: int) -> bool:
    """Return whether a machine has a processor and so much memory."""
    found = [node["Resources"] for node in live_nodes(ray).values()]
    return any(of.get("CPU", 0) >= 1 and of.get("memory", 0) >= memory for of in found)


def refuse_unseen(addresses: dict[str, str], sources: Sequence[Source]) -> None:
    """Refuse sources that a machine does not see as they are here."""
    paths = [source.path for source in sources]
    for node, answer in run_on_nodes(addresses, statuses, paths).items():
        if isinstance(answer, Refusal):
            raise Refusal(f"{addresses[node]}: {answer}") from answer
        for source, found in zip(sources, answer, strict=True):
            if found != (source.size, source.written):
                raise Refusal(
                    f"{source.path}: {'another' if found else 'missing'} on {addresses[node]};"
                    " sources on storage that all machines share expected"
                )


def statuses(paths: Sequence[Path]) -> list[tuple[int, int] | None]:
    """Return the size of each file and when it was written; None for one that is missing."""
    found = [path.stat() if path.is_file() else None for path in paths]
    return [(status.st_size, status.st_mtime_ns) if status else None for status in found]
