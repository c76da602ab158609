"""Predictions to the terminal or to a file, one record after the other."""

import csv
import json
import os
import re
import sys
from pathlib import Path
from typing import IO, Any

from ..errors import OptionError
from ..tasks.job import Prediction

FORMATS = {".csv": ",", ".tsv": "\t", ".jsonl": "json", ".txt": "text", ".conll": "text"}
_BREAK = re.compile(r"[\t\r\n]+")  # what a cell of a .tsv cannot have


def write(found: Prediction, out: Path | None) -> None:
    """To `out`, in the format that its name says; without it to standard output, as text or comma-separated.

    OptionError: an unknown format, or a file that is there. What fails half-way leaves no file.
    A .tsv has a line per record: breaks of lines and tabs within a text become spaces.
    """
    if out is None:
        _write(found, sys.stdout, "text" if found.text else ",")
        return
    if out.suffix.lower() not in FORMATS:
        raise OptionError(f"--out {out}: expected a name that ends with {', '.join(FORMATS)}")
    if out.suffix.lower() == ".conll" and "word" not in found.columns:
        raise OptionError(f"--out {out}: these are no words with tags; expected .csv, .tsv, .jsonl or .txt")
    if out.exists():
        raise OptionError(f"--out {out} exists; name another file")
    if not out.parent.is_dir():
        raise OptionError(f"--out {out}: there is no folder {out.parent}; make it first")
    part = out.with_name(f".{out.name}.part")
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            _write(found, file, FORMATS[out.suffix.lower()])
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


def _write(found: Prediction, file: IO[str], form: str) -> None:
    if form == "json":
        for record in found.records:
            file.write(json.dumps({name: record[name] for name in found.columns}, ensure_ascii=False) + "\n")
    elif form == "text" and found.text is not None:
        for record in found.records:
            file.write(found.text(record) + "\n")
    else:
        tabs = form in ("\t", "text")
        rows: Any = csv.writer(file, delimiter="\t" if tabs else form, lineterminator="\n")
        rows.writerow(found.columns)
        for record in found.records:
            cells = (record[name] for name in found.columns)
            rows.writerow([_BREAK.sub(" ", cell) if tabs and isinstance(cell, str) else cell for cell in cells])
