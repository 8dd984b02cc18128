"""llama.cpp: Markdown tables of perplexities, and what llama-perplexity prints."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import regular
from ..raw import Raw, from_records

MAX_BYTES = 50_000_000
_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
_PAIR = rf"(-?{_NUMBER[1:-1]})(?:\s*(?:±|\+/-)\s*{_NUMBER})?"
_FINAL = re.compile(rf"Final estimate: PPL\s*=\s*{_PAIR}")
_PRINTED = {
    "ppl": re.compile(rf"Mean PPL\(Q\)\s*:\s*{_PAIR}"),
    "gap": re.compile(rf"Mean ln\(PPL\(Q\)/PPL\(base\)\)\s*:\s*{_PAIR}"),
    "kl": re.compile(rf"Mean\s+KLD:\s*{_PAIR}"),
}
_SIZE = re.compile(rf"{_NUMBER}\s*(GiB|MiB|GB|MB)")
_UNIT = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6}
_MODEL = re.compile(
    r"(?:general\.name\s+str\s*=\s*|loaded meta data [^\n]{0,200}?from\s+|\s-m\s+|\s--model\s+)(\S+)"
)
_TYPE = re.compile(
    r"(?<![A-Za-z0-9])(I?Q[1-8]_[A-Za-z0-9_]+|TQ[12]_0|MXFP4(?:_MOE)?|B?F16|F32)(?![A-Za-z0-9])", re.I
)
_FTYPE = re.compile(r"model ftype\s*=\s*(\S+)|file type\s*=\s*(\S+)")
_PARAMS = re.compile(rf"model params\s*=\s*{_NUMBER}\s*([KMBT])")
_BPW = re.compile(rf"\(\s*{_NUMBER}\s*BPW\)")
_NATIVE = ("F16", "BF16", "F32", "FP16")


def read(source: str) -> Raw:
    """Rows of a Markdown table of quants, or the one of a log of llama-perplexity.

    A table needs a column of types (Q4_K_M, ...) and one of perplexities (PPL, with or without ±). `gap` is the
    difference of the logarithms from the row of F16, BF16 or F32 of the same table and model, if there is one; its
    standard error is known only from llama-perplexity --kl-divergence, which pairs tokens. Losses are of that program's
    text, which each row should share with the others.

    Raises:
        DataError: it holds neither.
    """
    path = Path(source)
    try:
        raw = regular(path, MAX_BYTES)
        if len(raw) > MAX_BYTES:
            raise DataError(
                f"{path} is larger than {MAX_BYTES // 10**6} MB; cut out the table, or the last lines"
            )
        text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    found = _tables(text) or _log(text, path)
    for _, record in found:
        record["run_name"] = f"{path.stem} {record['quant']}" if record.get("quant") else path.stem
    if not found:
        raise DataError(
            f"{path} has no table of quantisations with a column PPL, and no line `Final estimate: PPL = ...` "
            "or `Mean PPL(Q)` of llama-perplexity"
        )
    return from_records(found, str(path), "llama.cpp")


def _tables(text: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []
    lines = text.splitlines()
    place = 0
    while place + 1 < len(lines):
        head, rule = _cells(lines[place]), _cells(lines[place + 1])
        if not head or len(rule) != len(head) or not all(re.fullmatch(r":?-+:?", cell) for cell in rule):
            place += 1
            continue
        rows = []
        place += 2
        while place < len(lines) and lines[place].lstrip().startswith("|"):
            rows.append((f"line {place + 1}", _cells(lines[place])))
            place += 1
        found += _table(head, rows)
    return found


def _cells(line: str) -> list[str]:
    line = line.strip()
    if not line.startswith("|"):
        return []
    return [cell.strip().strip("*`") for cell in line.strip("|").split("|")]


def _table(head: list[str], rows: list[tuple[str, list[str]]]) -> list[tuple[str, dict[str, Any]]]:
    """Rows of a table that has types and perplexities; none of any other."""
    names = [cell.lower() for cell in head]
    kind = _first(names, r"quant.*|type|ftype|model quant.*")
    ppl = _first(names, r"(mean )?(ppl|perplexity)\b(?!.*[/δ-]).*")
    if kind is None or ppl is None:
        return []
    columns = {
        "kl": _first(names, r"(mean )?kld.*"),
        "size": _first(names, r"(?!.*(ctx|context|batch|chunk|group)).*size.*"),
        "bpw": _first(names, r"bpw.*|bits per weight.*|bits/weight.*"),
    }
    found = []
    for place, cells in rows:
        cells = cells + [""] * (len(head) - len(cells))
        record: dict[str, Any] = {"quant": cells[kind]}
        for name, cell in zip(head, cells, strict=False):
            if name not in (head[kind], head[ppl]) and name:
                record[name] = cell or None
        record |= _loss(cells[ppl])
        if columns["kl"] is not None:
            value, se = _pair(cells[columns["kl"]])
            record |= {"kl": value, "kl_se": se}
        if columns["size"] is not None:
            record["bytes"] = _bytes(cells[columns["size"]], head[columns["size"]])
        if columns["bpw"] is not None:
            record["bpw"] = cells[columns["bpw"]]
        found.append((place, record))
    return _paired(found)


def _first(names: list[str], pattern: str) -> int | None:
    return next((place for place, name in enumerate(names) if re.fullmatch(pattern, name)), None)


def _pair(cell: str) -> tuple[str | None, str | None]:
    """A value and its error, as they are written; the whole cell where it is neither."""
    match = re.fullmatch(_PAIR, cell)
    if match:
        return match[1], match[2]
    return (cell if cell not in ("", "-") else None), None


def _loss(cell: str) -> dict[str, Any]:
    """A perplexity, and the standard error of its logarithm."""
    ppl, se = _pair(cell)
    number = float(ppl) if ppl is not None and re.fullmatch(_NUMBER, ppl) else 0.0
    return {"ppl": ppl, "loss_se": float(se) / number if se and number > 0 else None}


def _bytes(cell: str, head: str) -> Any:
    unit = re.search(r"(GiB|MiB|GB|MB)", head)
    match = _SIZE.fullmatch(cell) or (unit and re.fullmatch(rf"{_NUMBER}()", cell))
    if not match:
        return None if re.fullmatch(_NUMBER, cell) else cell or None  # a number of who knows what
    return float(match[1]) * _UNIT[match[2] or (unit[1] if unit else "GiB")]


def _paired(found: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Rows with their gap to the one row of the same model that is not quantised."""
    models: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    cells: dict[str, list[Any]] = {}
    for _, record in found:
        for name, value in record.items():
            if value and re.fullmatch(r"(base )?model|.*param.*", name.lower()):
                cells.setdefault(name, []).append(value)
    tell = [name for name, some in cells.items() if len(set(some)) < len(some)]  # others name files
    for _, record in found:
        which = tuple(str(record.get(name)) for name in tell)
        if re.fullmatch(_NUMBER, str(record["ppl"])):
            models.setdefault(which, []).append(record)
    for rows in models.values():
        base = [r for r in rows if str(r["quant"]).upper() in _NATIVE]
        for record in rows if len(base) == 1 else ():
            ratio = float(record["ppl"]) / float(base[0]["ppl"])
            if record is not base[0]:
                record["gap"] = math.log(ratio) if ratio > 0 else None
    return found


def _log(text: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    record: dict[str, Any] = {}
    final = list(_FINAL.finditer(text))
    if final:
        record |= _loss(f"{final[-1][1]} ± {final[-1][2]}" if final[-1][2] else final[-1][1])
    for name, pattern in _PRINTED.items():
        matches = list(pattern.finditer(text))
        if matches and name == "ppl":
            record |= _loss(f"{matches[-1][1]} ± {matches[-1][2]}" if matches[-1][2] else matches[-1][1])
        elif matches:
            record |= {name: matches[-1][1], f"{name}_se": matches[-1][2]}
    if not record.get("ppl"):
        return []
    model = _MODEL.search(text)
    ftype = _FTYPE.search(text)
    where = " ".join(
        part for part in (ftype and (ftype[1] or ftype[2]), model and model[1], path.name) if part
    )
    kind = _TYPE.search(where)
    record |= {"quant": kind[1].upper() if kind else None, "model": model[1] if model else None}
    size, bpw = _PARAMS.search(text), _BPW.search(text)
    record |= {"num_params": f"{size[1]}{size[2]}" if size else None, "bpw": bpw[1] if bpw else None}
    return [
        (
            f"line {text[: text.rfind('PPL')].count(chr(10)) + 1}",
            {k: v for k, v in record.items() if v is not None},
        )
    ]
