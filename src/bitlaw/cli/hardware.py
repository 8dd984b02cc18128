"""The verb that lists hardware."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import JsonFlag, print_json


def hardware(
    name: Annotated[
        str | None, typer.Argument(help="A profile, or a .toml file of your own; #NAME after it chooses.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """List hardware profiles, or print one in full with its sources and dates.

    Rates are peaks of dense matrix products, without sparsity, in TFLOP/s. What is not known stays empty.

    * `bitlaw hardware`: all of them
    * `bitlaw hardware h100`: one in full
    """
    from ..planning.hardware import UNITS, profiles
    from ..planning.hardware import hardware as look_up

    if name is not None:
        found = look_up(name)
        if json_:
            print_json(found.model_dump(mode="json"))
            return
        print(f"{found.name}: {found.label}\nFigures from {found.source} ({found.date}).")
        print(f"Memory: {_scaled(found.memory, 1e9, 'GB')}, read at {_scaled(found.bandwidth, 1e9, 'GB/s')}.")
        for unit, flops in found.peak.known().items():
            print(f"  {unit:5} {flops / 1e12:9,.4g} TFLOP/s")
        paid = f" ({found.price_source}; {found.price_date})" if found.price else ""
        print(f"Price: {_scaled(found.price, 1, 'USD an hour')}{paid}.")
        for m in found.measured:
            print(
                f"Measured: {m.what} in {m.formats}, {m.factor:g} times as fast as in {m.over} ({m.source})."
            )
        if found.note:
            print(f"Note: {found.note}.")
        return
    if json_:
        print_json([found.model_dump(mode="json") for found in profiles().values()])
        return
    print(f"{'hardware':10} {'GB':>4} {'GB/s':>6}" + "".join(f" {unit:>6}" for unit in UNITS) + "  USD/h")
    for found in profiles().values():
        rates = found.peak.known()
        cells = [f" {_scaled(rates.get(unit), 1e12, unknown=''):>6}" for unit in UNITS]
        held = f"{_scaled(found.memory, 1e9, unknown=''):>4} {_scaled(found.bandwidth, 1e9, unknown=''):>6}"
        print(
            f"{found.name:10} {held}{''.join(cells)}  {f'{found.price:.2f}' if found.price else ''}".rstrip()
        )
    print("\nTFLOP/s of dense products; empty means unknown. `bitlaw hardware NAME` gives sources and dates.")


def _scaled(value: float | None, scale: float, unit: str = "", unknown: str = "unknown") -> str:
    return unknown if value is None else f"{value / scale:,.4g} {unit}".strip()
