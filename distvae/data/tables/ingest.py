"""Write tables of any size to Arrow files in which every row has a random place.

The data is read once and written twice. First, stretches of the sources are sorted into slabs;
then each file is put together from all slabs. Both are done by several processes, in memory that
does not grow with the data. The place of a row depends only on the seed and the number of rows.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distvae.data.tables.folder import claim, whole_folder
from distvae.data.tables.formats import Table
from distvae.data.tables.plan import Division, Plan
from distvae.data.tables.rows import (
    FACTS,
    MANIFEST,
    VERSION,
    FileEntry,
    digest,
    note_checked,
    read_manifest,
    read_record,
    training_command,
)
from distvae.data.tables.work import Work
from distvae.data.tables.workers import LocalProcesses, Workers
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.numerics.facts import Facts, add_facts

__all__ = ["Division", "Execution", "ingest"]

Splits = dict[str, list[FileEntry]]


@dataclass(frozen=True)
class Execution:
    """Options of how an ingest is carried out. The files do not depend on them."""

    workers: Workers = field(default_factory=LocalProcesses)
    resume: bool = False
    """Go on with an ingest that was killed, if there is one."""
    rows_per_slab: int | None = None
    """Rows that are sorted together; None for 256 MB of them."""


def ingest(
    sources: Sequence[Path],
    out: Path,
    division: Division | None = None,
    force: bool = False,
    quiet: bool = False,
    execution: Execution | None = None,
) -> str:
    """Place the rows of all sources in a new folder; return a sentence on what it holds."""
    execution = execution or Execution()
    resume = execution.resume
    claim(out, force or resume)
    tables = [Table.open(path) for path in sources]
    plan = Plan.of(tables, division or Division(), execution.rows_per_slab)
    if resume and (out / MANIFEST).is_file():
        if _is_made(out, plan):
            return _summary(out, read_manifest(out))
        if not force:
            raise Refusal(
                f"--resume: {out} was made from other sources, from sources that were written"
                " again since, or with other settings, or is damaged; --force replaces it"
            )
    execution.workers.check(plan, out.resolve())
    with whole_folder(out.resolve(), plan, resume) as work:
        _carry_out(work, execution.workers, quiet)
        splits = _write_manifest(work)
    note_checked(out.resolve(), [entry for files in splits.values() for entry in files])
    return _summary(out, read_manifest(out))


def _carry_out(work: Work, workers: Workers, quiet: bool) -> None:
    """Sort all stretches and write all files, other than those that are there."""
    unsorted, ungathered = work.unsorted(), work.ungathered()
    plan = work.plan
    left = sum(plan.stretches[number].rows for number in unsorted)
    left += sum(plan.parts[number].rows for number in ungathered)
    tasks = max(len(unsorted), len(ungathered))
    with _progress(2 * plan.rows, quiet) as advance:
        advance(2 * plan.rows - left)
        with workers.start(work, tasks) as pool:
            for rows in pool.results([("sort", number) for number in unsorted]):
                advance(rows)
            for rows in pool.results([("gather", number) for number in ungathered]):
                advance(rows)
    work.remove_torn()  # what a process that was lost has left behind


def _is_made(out: Path, plan: Plan) -> bool:
    """Return whether a folder is what a plan would make."""
    manifest = read_manifest(out)
    splits = manifest["splits"].values()
    files = [(entry["file"], entry["rows"]) for entries in splits for entry in entries]
    parts = [(part.name, part.rows) for part in plan.parts]
    facts = {name: manifest.get(name) for name in ("values", "seed", "sources")}
    try:
        record = read_record(out, manifest["digest"])
    except Refusal:  # damaged
        return False
    sources = record.get("sources", plan.sources_digest)
    return (facts, files, sources) == (_described(plan), parts, plan.sources_digest)


def _described(plan: Plan) -> dict[str, object]:
    """Return what a manifest says of a plan."""
    named = [{"name": source.path.name, "rows": source.rows} for source in plan.sources]
    return {"values": plan.values, "seed": plan.seed, "sources": named}


def _write_manifest(work: Work) -> Splits:
    """Write what the files are, and the facts about their rows; return the files by split."""
    plan, splits = work.plan, Splits()
    facts: dict[str, list[Facts]] = {}
    for part, written in zip(plan.parts, work.written(), strict=True):
        splits.setdefault(part.split, []).append(written["entry"])
        facts.setdefault(part.split, []).append(Facts.read(written["facts"]))
    totals = {split: add_facts(parts) for split, parts in facts.items()}
    missing = any(total.missing for total in totals.values())
    content = {"version": VERSION, **_described(plan), "missing": missing, "splits": splits}
    manifest = content | {"digest": digest(content)}
    records = {split: total.record() for split, total in totals.items()}
    about = {
        "version": VERSION,
        "rows": manifest["digest"],
        "sources": plan.sources_digest,
        "splits": records,
    }
    folder = Folder(work.folder)
    folder.write(FACTS, json.dumps(about | {"digest": digest(about)}).encode())
    folder.write(MANIFEST, json.dumps(manifest, indent=1).encode())
    return splits


def _summary(out: Path, manifest: dict[str, object]) -> str:
    splits = manifest["splits"]
    assert isinstance(splits, dict)
    counts = {split: sum(entry["rows"] for entry in files) for split, files in splits.items()}
    each = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    size = sum(entry["bytes"] for files in splits.values() for entry in files)
    missing = ", some missing" * bool(manifest["missing"])
    what = (
        f"{sum(counts.values()):,} rows ({each}) of {manifest['values']:,} values{missing},"
        f" {size:,} bytes"
    )
    return f"{out}: {what}; next: {training_command(str(out))}"


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that counts rows under a progress bar, if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=quiet or not console.is_terminal
    ) as progress:
        task = progress.add_task("Rows to their places", total=total)
        yield lambda rows: progress.advance(task, rows)
