"""Pictures and sounds of evaluated runs, and the choice of the trials that a page shows."""

from collections.abc import Iterator, Mapping, Sequence

from distvae.numerics.numbers import listed, shown
from distvae.report.blocks import Block, Exhibit, Gallery, Picture, Sound, Text
from distvae.report.reading import RunResults, Sweep, Trial
from distvae.tune.pictures import MAX_TRIALS

CAPTIONS = {
    "spectrogram": "The first recording: original, reconstruction, and their difference.",
    "images": "Originals above their reconstructions.",
    "codes": "How the values of the code are used.",
    "atoms": "What each value of the code adds to the output.",
    "dictionary": "The dictionary.",
    "learning": "The course of training.",
}
ORIGINALS = ("images",)
"""Pictures that show the data itself."""
SOUNDS = {"original": "Original", "reconstruction": "Reconstruction"}
OF_TRIALS = ("spectrogram", "images", "codes", "dictionary")
"""The pictures of a trial that a sweep's page shows."""
Exhibits = Mapping[int, Exhibit]
"""Exhibits by the number of their trial, in the order of rank."""


def exhibit(
    run: RunResults, split: str, title: str, names: Sequence[str] = tuple(CAPTIONS)
) -> Exhibit:
    """Collect the named pictures and the sounds that the evaluation of a split wrote."""
    folder = run.evaluation_folder(split)
    sounds = [Sound(folder / f"{name}.wav", caption) for name, caption in SOUNDS.items()]
    pictures = [Picture(folder / f"{name}.png", CAPTIONS[name]) for name in names]
    return Exhibit(
        title,
        [sound for sound in sounds if sound.file.is_file()],
        [picture for picture in pictures if picture.file.is_file()],
    )


def exhibits(sweep: Sweep) -> Exhibits:
    """Collect the trials that the page shows, of those that have sounds or pictures."""
    found = {}
    for trial in sweep.finished:
        if part := _trial_exhibit(trial, sweep):
            found[trial.result.number] = part
    available = [trial for trial in sweep.finished if trial.result.number in found]
    kept = {trial.result.number for trial in _choose(available)}
    return {number: part for number, part in found.items() if number in kept}


def _choose(trials: Sequence[Trial]) -> Iterator[Trial]:
    """Yield the best, the worst, those on the front, and others in the order of rank."""
    ends = [*trials[:1], *trials[1:][-1:]]
    rest = [trial for trial in trials if trial not in ends]
    front = [trial for trial in rest if trial.result.unbeaten]
    room = MAX_TRIALS - len(ends)
    if len(front) > room:
        front = [front[place * len(front) // room] for place in range(room)]
    others = [trial for trial in rest if not trial.result.unbeaten]
    yield from ends
    yield from [*front, *others][:room]


def _trial_exhibit(trial: Trial, sweep: Sweep) -> Exhibit | None:
    """Return the sounds and pictures of a trial's first run, if it has any."""
    runs = [run for run in trial.runs if sweep.split in run.figures]
    if not runs:
        return None
    result = trial.result
    figures = [f"{name} {shown(result.figures[name])}" for name in sweep.metrics]
    title = f"Trial {result.number}{_rank(trial, sweep)}: {result.label} ({', '.join(figures)})"
    part = exhibit(runs[0], sweep.split, title, OF_TRIALS)
    if not part.sounds and not part.pictures:
        return None
    note = "" if part.pictures else "Its pictures were not drawn."
    return Exhibit(
        title, part.sounds, part.pictures, f"trial-{result.number}", f"{result.number}", note
    )


def _rank(trial: Trial, sweep: Sweep) -> str:
    """Say what place a trial has among those that finished."""
    words = []
    metric = next(iter(sweep.metrics))
    if trial is sweep.finished[0]:
        words.append(f"the best in {metric}")
    elif trial is sweep.finished[-1]:
        words.append(f"the worst in {metric}")
    if trial.result.unbeaten and len(sweep.metrics) > 1:
        words.append("on the front")
    return f", {listed(words)}" if words else ""


def gallery(sweep: Sweep, chosen: Exhibits) -> Iterator[Block]:
    """Yield the exhibits of a sweep, and say which trials have one."""
    if not chosen:
        return
    has_diagram = len(sweep.metrics) > 1 and len(sweep.finished) > 1
    by_point = ", or by its point in the diagram of trade-offs" if has_diagram else ""
    yield Text(f"Choose a trial here, by its row{by_point}.", on_page=True)
    if len(chosen) < len(sweep.finished):
        yield Text(
            f"The page has {len(chosen)} of the {len(sweep.finished)} trials that finished: of "
            f"those with sounds or pictures at most {MAX_TRIALS}, the best, the worst and the "
            "front first."
        )
    yield Gallery(list(chosen.values()))
