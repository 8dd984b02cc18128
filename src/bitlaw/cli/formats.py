"""The verb that lists number formats."""

from __future__ import annotations

from .common import JsonFlag, print_json


def formats(json_: JsonFlag = False) -> None:
    """List number formats: bits, bits per weight with scales, and how well they hold Gaussian data.

    A recipe is a format and, after it, what shares a scale (tensor, channel, token, group128, block32), how the
    scale is found (absmax, absmean, gaussian, mse, learned), and `stochastic` or `rotate`: "int4 group128 mse".
    Weights that are `stored` train without a float master copy: "int8 stored stochastic".
    """
    from ..formats.listing import listing

    lines = list(listing())
    if json_:
        print_json([vars(line) for line in lines])
        return
    print(f"{'format':12} {'bits':>5} {'bpw':>7} {'Gaussian error':>15} {'effective bits':>15}  status")
    meaning = ""
    for line in lines:
        if line.meaning != meaning:
            meaning = line.meaning
            print(f"\n{meaning} ({line.source})")
        error = (f"{line.error:.3g}", f"{line.effective:.2f}") if line.error else ("", "")
        print(f"{line.name:12} {line.bits:>5g} {line.bpw:>7.3f} {error[0]:>15} {error[1]:>15}  {line.status}")
    print("\nAny intB, uintB and midriseB of up to 16 bits, and any eXmY with X up to 7, can be named.")
    print(
        "bpw: of a packed 4096 x 4096 weight; one 16-bit scale an output where the format has none of its own."
    )
