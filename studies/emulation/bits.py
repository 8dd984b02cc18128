"""What bits do to emulated fine-tuning: which of its three models should lose bits first, and is a large one mended?

    python studies/emulation/bits.py    # after pairs.py; minutes of one core; writes the tables beside this file

1. bits.csv: a large base, a small base, and that one tuned to the behaviour, each at four numbers of bits: the
   likelihood of text with the behaviour, acceptance of the tuned model as draft, and speed where weights are read
   from memory.
2. dequantised.csv, "emulated de-quantisation": is log p_large(low) + log p_small(16) - log p_small(low) likelier to
   have written the text than the low-bit large model alone? A difference below 0 says yes.

Weights are rounded to nearest, one scale an output. Intervals are Student's over pairs, 90 %, paired by seed.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch
from pairs import CORPUS, SMALL, pairs, text_of
from shares import interval, loss

from bitlaw import Scheme
from bitlaw.lab.corpus import read_corpus, spread_windows
from bitlaw.lab.decode import Allocation, Decoder, allocations, emulate, first_to_lose
from bitlaw.lab.model import load_model
from bitlaw.lab.quantize import quantize_parts
from bitlaw.lab.quantize.settings import Setting, bytes_of

HERE = Path(__file__).parent
THREE, MENDED = (16, 6, 4, 3), (2, 3, 4, 6)
TEXTS, SEQ, PROMPT = 96, 128, 16
NAMES = ("base_bits", "reference_bits", "tuned_bits")


def at_bits(folder: Path, bits: int) -> Decoder:
    """A model with weights of so many bits."""
    loaded = load_model(folder)
    low = loaded.model if bits == 16 else quantize_parts(loaded.model, Scheme.parse(f"w{bits}"))
    return Decoder(low, loaded.vocab)


def size_of(folder: Path, bits: int) -> int:
    """Bytes of a model with weights of so many bits."""
    form = "bf16" if bits == 16 else f"int{bits}"
    return bytes_of(load_model(folder).model, Setting.of("rtn", form))


def row(seed: int, way: Allocation) -> dict[str, float]:
    """A way to give bits, as a row."""
    rest = {name: value for name, value in vars(way).items() if name != "bits"}
    return {"seed": seed, **dict(zip(NAMES, way.bits, strict=True)), **rest}


def main() -> None:
    """Measure, write tables and print what they say."""
    torch.set_num_threads(1)
    corpus = read_corpus(CORPUS)
    held = spread_windows(corpus.evaluation, TEXTS * SEQ, SEQ)
    shown, prices, mended = [], [], []
    for pair in pairs():
        models = pair.large, pair.small, pair.tuned(SMALL, "behaviour")
        windows = spread_windows(text_of("behaviour", pair.seed, corpus).evaluation, TEXTS * SEQ, SEQ)
        texts = windows.inputs.tolist()
        sources = [{bits: at_bits(folder, bits) for bits in THREE} for folder in models]
        table = allocations(
            *sources,
            [{bits: size_of(folder, bits) for bits in THREE} for folder in models],
            [text[:PROMPT] for text in texts],
            [text[PROMPT:] for text in texts],
        )
        shown += [row(pair.seed, way) for way in table]
        prices += [(pair.seed, *step) for step in first_to_lose(table)]
        whole = at_bits(pair.small, 16)
        for bits in MENDED:
            large, small = at_bits(pair.large, bits), at_bits(pair.small, bits)
            alone = loss(large, held)
            more = loss(emulate(large, small, whole), held) - alone
            mended.append({"seed": pair.seed, "bits": bits, "loss": alone, "difference": more})
    ways, found = pl.DataFrame(shown), pl.DataFrame(mended)
    ways.write_csv(HERE / "bits.csv", float_precision=6)
    found.write_csv(HERE / "dequantised.csv", float_precision=6)
    for bits, group in ways.group_by(NAMES, maintain_order=True):
        values = (f"{c} {interval(group[c].to_numpy())}" for c in ("extra", "acceptance", "speed"))
        print(f"bits {bits}: {', '.join(values)}")
    steps = pl.DataFrame(prices, schema=("seed", "part", "bits", "price"), orient="row")
    for (part, bits), group in steps.group_by("part", "bits", maintain_order=True):
        print(f"{part} to {bits} bits: {interval(group['price'].to_numpy())} nats a megabyte saved")
    for (bits,), group in found.group_by("bits", maintain_order=True):
        print(f"mended at {bits} bits: {interval(group['difference'].to_numpy())} nats a byte")


if __name__ == "__main__":
    main()
