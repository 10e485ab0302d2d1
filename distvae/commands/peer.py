"""`distvae peer`: the scores of a baseline."""

from dataclasses import dataclass

from distvae.commands.configuration import configure
from distvae.commands.options import AsJson, Data, progress_style


@dataclass(frozen=True)
class PeerOptions:
    """The options of `distvae peer`."""

    data: Data = None
    json: AsJson = False


def evaluate_baseline(name: str, recipe: str, assignments: list[str], options: PeerOptions) -> None:
    """Evaluate a baseline on the data of a recipe, and print its scores."""
    from distvae.commands.evaluate import print_scores
    from distvae.tasks.baselines import score_baseline

    config = configure(recipe, assignments, options.data)
    scores = score_baseline(name, config, progress=True)
    print_scores(scores, progress_style(quiet=False, json=options.json))
