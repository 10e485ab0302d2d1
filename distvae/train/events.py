"""What happens to the workers of a run beside their training, as the run folder keeps it, and in
words.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from distvae.files.storage import Folder
from distvae.train.checkpoint import read_manifest

EVENTS = "events.jsonl"
"""When training began or went on, from which epoch, with how many workers; and when machines were
to be taken away.
"""


def record_event(
    folder: Folder, workers: int, shards: Sequence[Mapping[str, float]], leaving: int = 0
) -> None:
    """Write down that training begins or goes on, and what the shards then hold; or that machines
    will leave.
    """
    last = read_manifest(folder, "last.json") if folder.has("last.json") else None
    epoch = int(last["facts"]["position"]["epoch"]) if last else 0
    held = {name: [shard[name] for shard in shards] for name in ("rows", "bytes")}
    event = {"epoch": epoch, "workers": workers, "leaving": leaving, "time": time.time(), **held}
    folder.append(EVENTS, json.dumps(event).encode() + b"\n")


def starts_of(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that tell of a beginning, not of machines that will leave."""
    return [event for event in events if not event.get("leaving")]


def describe_event(event: Mapping[str, float], count: int) -> str:
    """What to say of an event, when training has begun so often."""
    if event["leaving"]:
        return (
            f"{_counted(event['leaving'], 'machine')} will be taken away; what was trained is saved"
        )
    who = _counted(event["workers"], "worker")
    start = f"from epoch {event['epoch']:.0f}"
    return f"{who}, {start}" if count == 1 else f"workers lost or changed; {who} go on {start}"


def _counted(count: float, what: str) -> str:
    return f"{count:.0f} {what}" + ("s" if count > 1 else "")
