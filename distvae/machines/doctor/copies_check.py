"""Places of the workers of a training, and of the copies that they go on from after a loss."""

from collections.abc import Iterator, Mapping

from distvae.machines.copies.assignment import assign_keepers, count_together, machines_for_more
from distvae.machines.doctor.diagnosis import Diagnosis


def check_copies(machines: Mapping[str, float]) -> Iterator[Diagnosis]:
    """Place as many workers of one thread as fit on machines of so many processors.

    Tell how many machines have workers, and whether each worker's keeper is on another one.
    """
    workers = [name for name, cpus in machines.items() for _ in range(int(cpus))]
    names = list(dict.fromkeys(workers))
    where = ", ".join(machines)
    if not workers:
        found = "Ray counts no processors, so no worker fits"
        yield Diagnosis("bad", "copies", where, found, "machines with processors expected")
        return
    if len(names) == 1:
        found = f"room for {len(workers)} workers, all on {names[0]}, and their copies beside them"
        remedy = "a second machine, if training is to go on from memory after the loss of this one"
        yield Diagnosis("info", "copies", where, found, remedy)
        return
    keepers: list[str | None] = [names[k % len(names)] for k in range(len(workers))]
    keepers += machines_for_more(workers, [str(name) for name in keepers], names)
    beside = count_together(workers, keepers, assign_keepers(workers, keepers))
    places = (
        "one beside each worker, one elsewhere" if not beside else f"{beside} beside the worker"
    )
    found = f"room for {len(workers)} workers on {len(names)} machines; copies: {places}"
    yield Diagnosis("ok", "copies", where, found)
