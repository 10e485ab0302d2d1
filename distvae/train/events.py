"""The events of a run: starts with some number of workers, and machines that will be lost."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import cast

from distvae.files.storage import Folder
from distvae.train.checkpoint import Place, read_manifest
from distvae.train.documents import Event
from distvae.train.run import read_records

EVENTS = "events.jsonl"
"""The file of a run folder with its events, one a line."""


def record_event(
    folder: Folder, workers: int, shards: Sequence[Mapping[str, float]], leaving: int = 0
) -> None:
    """Record that training starts or goes on, with what each shard holds.

    With `leaving`, record that so many machines will be taken away.
    """
    epoch = 0
    if folder.has("last.json"):
        epoch = int(read_manifest(folder, "last.json")["facts"]["position"]["epoch"])
    event: Event = {
        "epoch": epoch,
        "workers": workers,
        "leaving": leaving,
        "time": time.time(),
        "rows": [shard["rows"] for shard in shards],
        "bytes": [shard["bytes"] for shard in shards],
    }
    folder.append(EVENTS, json.dumps(event).encode() + b"\n")


def read_events(place: Place) -> list[Event]:
    """Return the events of a run, in order."""
    return cast(list[Event], read_records(place, EVENTS))


def starts_of(events: Sequence[Event]) -> list[Event]:
    """Return the events at which training started or went on."""
    return [event for event in events if not event.get("leaving")]


def describe_event(event: Event, start: int) -> str:
    """Return an event in words; `start` counts the starts until then."""
    if event["leaving"]:
        machines = _count(event["leaving"], "machine")
        return f"{machines} will be taken away; what was trained is saved"
    workers = _count(event["workers"], "worker")
    epoch = f"from epoch {event['epoch']:.0f}"
    return (
        f"{workers}, {epoch}"
        if start == 1
        else f"workers lost or changed; training continues with {workers} {epoch}"
    )


def _count(count: float, noun: str) -> str:
    return f"{count:.0f} {noun}" + ("s" if count > 1 else "")
