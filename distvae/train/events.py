"""The events of a run: starts and resumptions, and machines that will be taken away."""

import json
from collections.abc import Sequence
from typing import cast

from distvae.files.storage import Folder
from distvae.numerics.numbers import counted
from distvae.train.checkpoint import Place
from distvae.train.documents import Event
from distvae.train.run import read_records

EVENTS = "events.jsonl"
"""The file of a run folder with its events, one event per line."""


def record_event(folder: Folder, event: Event) -> None:
    """Append an event to a run's file of events."""
    folder.append(EVENTS, json.dumps(event).encode() + b"\n")


def read_events(place: Place) -> list[Event]:
    """Return the events of a run, in order."""
    return cast(list[Event], read_records(place, EVENTS))


def starts_of(events: Sequence[Event]) -> list[Event]:
    """Return the events at which training started or resumed."""
    return [event for event in events if not event.get("leaving") and not event.get("moved")]


def describe_event(event: Event, start: int) -> str:
    """Describe an event; `start` is the number of starts so far."""
    if event["leaving"]:
        machines = counted(event["leaving"], "machine")
        return f"{machines} will be taken away; what was trained is saved"
    workers = counted(event["workers"], "worker")
    if len({*event["machines"]}) > 1:
        workers += f" on {len({*event['machines']})} machines"
    epoch = f"from epoch {event['epoch']:.0f}"
    if event.get("batch"):
        epoch += f", batch {event['batch']:.0f}"
    return (
        f"{workers}, {epoch}"
        if start == 1
        else f"workers lost or changed; training continues with {workers} {epoch}"
    )
