"""`distvae check`: check that a run is complete and that its bound holds."""

from pathlib import Path


def check_run(run: Path, exact: bool, rows: int) -> None:
    """Read every file of a run, and compare its bound with the exact likelihood if wanted."""
    from distvae.tasks.exactness import compare_with_exact
    from distvae.train.run import Run

    Run.open(run)
    last = Run.left(run)
    print(f"{run}: complete")
    if exact:
        for name, value in compare_with_exact(last, rows).items():
            print(f"{name:20}{value:12.4f}")
