"""The names of the files of a pushed model."""

CARD = "README.md"
WEIGHTS = "model.safetensors"
EPOCHS = "epochs.jsonl"
SPLITS = ("test", "val", "train", "all")
"""The splits of its own data on which a run may have been evaluated."""
SUMMARIES = tuple(f"evaluation/{split}/summary.json" for split in SPLITS)
SUMS = "SHA256SUMS"
"""The file with the checksum of every other file but the card, as `sha256sum` writes it."""
NEEDED = ("best.json", "config.yaml", "run.json", WEIGHTS)
"""The files without which a model does not open."""
LISTED = {*NEEDED, "config.json", EPOCHS, *SUMMARIES}
"""The files that may have a checksum."""
