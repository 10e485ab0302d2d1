"""Run the notebooks of docs/notebooks again and save them with their outputs: `make notebooks`."""

import base64
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

from distvae.files.untrusted import Plain
from distvae.numerics.arithmetic import Arithmetic

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
VERSION = 4
"""The version of the notebook format."""
PROGRESS = "progress"
"""The tag of cells that show progress, whose outputs are not kept."""
COLOURS = 64
"""Number of colours of a figure, to keep notebooks small."""


def arithmetic() -> Mapping[str, Plain]:
    """Return the arithmetic of this machine. Machines with equal arithmetic give equal results."""
    return Arithmetic.of_process("blas", 1, torch.device("cpu")).facts()


def execute(file: Path, folder: Path) -> NotebookNode:
    """Return a notebook that was run in a folder, on one core and with the built-in data."""
    notebook = nbformat.read(file, VERSION)
    environment = {name: value for name, value in os.environ.items() if name != "DISTVAE_DATA"}
    with tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            record_timing=False,
            coalesce_streams=True,  # a kernel may send one text in parts
            config=private_kernel(sockets),
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env=environment | {"OMP_NUM_THREADS": "1"})
    for cell in notebook.cells:
        keep_little(cell)
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.arithmetic = dict(arithmetic())
    return notebook


def private_kernel(sockets: str) -> Config:
    """Return the settings of a kernel that only this user can reach, by sockets in a folder."""
    return Config(
        KernelManager={"transport": "ipc", "connection_file": str(Path(sockets) / "kernel.json")}
    )


def keep_little(cell: NotebookNode) -> None:
    """Remove progress from the outputs of a cell, and most colours from its figures."""
    if PROGRESS in cell.metadata.get("tags", []):
        cell.outputs = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            data["image/png"] = with_few_colours(data["image/png"])


def with_few_colours(png: str) -> str:
    """Return a smaller PNG, both in base 64."""
    stream = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.convert("RGB").quantize(COLOURS).save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def printed(notebook: NotebookNode) -> list[str]:
    """Return the text that the cells of a notebook printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text for output in outputs if output.output_type == "stream"]


if __name__ == "__main__":
    for file in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(file, Path(folder)), file)
