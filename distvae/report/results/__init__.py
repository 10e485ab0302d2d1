"""Finished rows, one JSON file each, and the pages that are built from them.

`rows` reads and writes the files, `record` makes a row of a run or of a baseline, `build` writes
the index, a page for each table and its CSV.
"""
