"""Finished rows for the tests of results."""


def finished_row(name: str, seed: int, **figures: float | None) -> dict[str, object]:
    """Return a finished row of the table `speech`."""
    return {
        "table": "speech",
        "row": name,
        "commit": "0123456789ab",
        "seconds": 10.0,
        "epochs": 30,
        "config": {"train.seed": seed},
        "figures": figures,
    }
