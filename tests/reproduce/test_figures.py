"""Figures of papers, drawn from finished rows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from distvae.reproduce.figures import Line, Panel, draw_figures, lines_of
from distvae.reproduce.rows import group_seeds, read_rows, write_row
from distvae.reproduce.table import Entry, read_table


def put(folder: Path, name: str, figures: Mapping[str, float]) -> None:
    row = {"table": "bars", "row": name, "commit": None, "seconds": 1.0, "epochs": 1}
    seed = int(name.rpartition("-s")[2])
    write_row(folder, row | {"config": {"train.seed": seed}, "figures": figures}, force=False)


def test_a_line_has_the_seeds_of_its_rows_by_the_number_in_their_names(tmp_path: Path) -> None:
    for name, value in {"vae-m16-s0": 1.0, "vae-m16-s1": 3.0, "vae-m8-s0": 5.0}.items():
        put(tmp_path, name, {"psnr": value})
    put(tmp_path, "vae-m32-s0", {"ssim": 0.5})
    put(tmp_path, "vae-m32-wide-s0", {"psnr": 9.0})
    lines = {"VAE": "vae-m{}", "wide": "vae-m{}-wide", "m = 8": "vae-m8", "absent": "vsc-m{}"}
    panel = Panel("", "psnr", "dB", lines, "latents")
    quoted = {"vae-m8": {"psnr": 4.0}, "vae-m32": {"psnr": 2.0}, "vsc-m8": {"ssim": 0.1}}
    assert lines_of(panel, group_seeds(read_rows(tmp_path, "bars")), quoted) == [
        Line("VAE", [8, 16], [[5.0], [1.0, 3.0]], {8: 4.0, 32: 2.0}),
        Line("wide", [32], [[9.0]], {}),
        Line("m = 8", [2], [[5.0]], {2: 4.0}),
        Line("absent", [], [], {}),
    ]


def test_a_figure_is_drawn_once_a_row_of_it_is_finished(tmp_path: Path) -> None:
    table = read_table("bars")
    assert draw_figures(table, tmp_path, tmp_path) == []
    put(tmp_path, "fitness-flip-s0", {"reliability": 0.1})
    entries = (*table.entries, Entry("exact", published={"reliability": 0.2}))
    for drawn in (table, replace(table, entries=entries)):
        (path,) = draw_figures(drawn, tmp_path, tmp_path)
        assert path.name == "bars-reliability.png"
        assert path.read_bytes().startswith(b"\x89PNG")
