"""Tables out: CSV, Parquet, LaTeX."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from ..errors import DataError
from ..files import whole
from ..units import format_quantity
from .schema import COLUMN, OVERVIEW
from .table import Runs

#: What LaTeX would read as something else.
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"  # spreadsheets of some languages take the wide signs too


def write(runs: Runs, path: Path, spreadsheet: bool) -> None:
    """See `write_runs`.

    Raises:
        DataError: an unknown kind of file, or one that cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet", ".tex"):
        raise DataError(f"cannot write {path}; name a file that ends in .csv, .parquet or .tex")
    if spreadsheet and suffix != ".csv":
        raise DataError(f"{path} is not for spreadsheets; name a file that ends in .csv")
    frame = used(runs)
    with whole(path) as temporary:
        if suffix == ".tex":
            temporary.write_text(latex(runs), encoding="utf-8")
        elif suffix == ".parquet":
            data = io.BytesIO()  # a full disk is an OSError to Python, and to polars something else
            frame.write_parquet(data)
            temporary.write_bytes(data.getbuffer())
        else:
            text = (without_formulas(frame) if spreadsheet else frame).write_csv()
            temporary.write_text(text, encoding="utf-8", newline="")


def used(runs: Runs) -> pl.DataFrame:
    """The columns that have a value."""
    return runs.frame.select([s.name for s in runs.frame if s.null_count() < len(s)])


def without_formulas(frame: pl.DataFrame) -> pl.DataFrame:
    """Text with ' before it where a spreadsheet would run it.

    >>> without_formulas(pl.DataFrame({"id": ["=1+1", "a"], "gap": [-1.0, 2.0]})).rows()
    [("'=1+1", -1.0), ('a', 2.0)]
    """
    text = pl.col(pl.String)
    return frame.with_columns(
        pl.when(text.str.contains(_FORMULA)).then("'" + text).otherwise(text).name.keep()
    )


def latex(runs: Runs) -> str:
    r"""A table for booktabs (`\usepackage{booktabs}`): one row a run, units in the head, all text escaped.

    >>> print(latex(Runs.from_rows([{"id": "a_1", "params": 1e6, "tokens": 2e7, "loss": 3.14159, "w_format": "int4"}])))
    % \usepackage{booktabs}
    \begin{tabular}{lrrlr}
    \toprule
    id & params & tokens & w\_format & loss [nats/token] \\
    \midrule
    a\_1 & 1M & 20M & int4 & 3.1416 \\
    \bottomrule
    \end{tabular}
    <BLANKLINE>
    """
    frame = used(runs)
    names = [c for c in OVERVIEW if c in frame.columns]
    numeric = [COLUMN[c].kind in ("integer", "number") for c in names]
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{''.join('r' if n else 'l' for n in numeric)}}}",
        r"\toprule",
        " & ".join(_head(c) for c in names) + r" \\",
        r"\midrule",
        *(
            " & ".join(_cell(c, v) for c, v in zip(names, row, strict=True)) + r" \\"
            for row in frame.select(names).iter_rows()
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _head(column: str) -> str:
    unit = COLUMN[column].unit
    return escaped(column) if unit in ("", "parameters", "tokens") else f"{escaped(column)} [{escaped(unit)}]"


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    if column in ("params", "tokens") and isinstance(value, float):
        return format_quantity(value)
    if isinstance(value, float):
        text = f"{value:.2g}" if column.endswith("_se") else f"{value:.4f}"
        return f"${text}$" if value < 0 else text
    return escaped(str(value))


def escaped(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> escaped(r"50% of a_b \input{x}")
    '50\\% of a\\_b \\textbackslash{}input\\{x\\}'
    """
    return "".join(_LATEX.get(c, c if c.isprintable() else " ") for c in text)
