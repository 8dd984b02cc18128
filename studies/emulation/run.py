"""What bits do to drafts and to emulated fine-tuning: three questions, on models of minutes.

    python studies/emulation/run.py          # four minutes of one core; writes the tables beside this file

1. rows.csv: of what a low-bit copy of a model drafts, how much does the model reject? Three sizes, three seeds, six
   bits; fitted by the laws `rejection` and `rejection-step`, with the largest size held out.
2. bits.csv: a large base, a small base, and that one tuned to write in capitals, each at four numbers of bits: the
   likelihood of text in capitals, acceptance of the tuned model as draft, speed where weights are read from memory.
3. dequantised.csv, "emulated de-quantisation": is log p_large(low) + log p_small(16) - log p_small(low) likelier to
   have written the text than the low-bit large model alone? A difference below 0 says yes.

The text is the standard library's own sources, in bytes. Weights are rounded to nearest, one scale an output.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

import bitlaw as bl
from bitlaw import Scheme
from bitlaw.lab.corpus import Corpus, batch, read_corpus, spread_windows
from bitlaw.lab.decode import Decoder, allocations, emulate, first_to_lose, log_likelihoods
from bitlaw.lab.model import Transformer
from bitlaw.lab.quantize import Reference, Setting, quantize_parts, try_settings
from bitlaw.shapes import ladder_shape

HERE = Path(__file__).parent
SIZES, SEEDS = (8_000, 24_000, 72_000), (0, 1, 2)
BITS = (2, 3, 4, 5, 6, 8)
STEPS, TUNING, BATCH, SEQ, EVAL = 300, 60, 12, 64, 16_384
THREE = (16, 6, 4, 3)
TEXTS, PROMPT = 48, 16


def taught(
    corpus: Corpus, model: Transformer, seed: int, steps: int, rate: float, capitals: bool = False
) -> Transformer:
    """Train a model on text as it is, or in capitals."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20, 5 * (1 - step / steps))
        x, y = batch(corpus, seed, step, BATCH, SEQ)
        x, y = (loud(x), loud(y)) if capitals else (x, y)
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model.eval()


def loud(tokens: Tensor) -> Tensor:
    """Bytes of a text in capitals."""
    return torch.where((tokens >= ord("a")) & (tokens <= ord("z")), tokens - 32, tokens)


def rows_of(model: Transformer, size: int, seed: int, corpus: Corpus) -> list[dict[str, Any]]:
    """A model and its copies, as rows of the run table."""
    before = Reference(model, spread_windows(corpus.evaluation, EVAL, SEQ))
    name = f"{size}-{seed}"
    parent = {
        "id": name, "trunk": name, "seed": seed, "params": model.shape.counts().non_embedding,
        "count": "non_embedding", "tokens": STEPS * BATCH * SEQ, "loss": before.loss.value,
        "loss_se": before.loss.se,
    }  # fmt: skip
    found = [parent]
    for outcome in try_settings(before, [Setting.of("rtn", f"int{bits}") for bits in BITS]):
        form = outcome.setting.weights.format.name
        found.append(
            parent | {
                "id": f"{name}-{form}", "parent": name, "post_format": form, "method": "rtn", "bpw": outcome.bpw,
                "loss": outcome.loss.value, "loss_se": outcome.loss.se, "gap": outcome.gap.value,
                "gap_se": outcome.gap.se, "kl": outcome.kl.value, "kl_se": outcome.kl.se,
                "rejection": outcome.rejection.value, "rejection_se": outcome.rejection.se,
            }
        )  # fmt: skip
    return found


def at_bits(model: Transformer, bits: int) -> Decoder:
    """A model with weights of so many bits, as a source."""
    low = model if bits == 16 else quantize_parts(model, Scheme.parse(f"w{bits}"))
    return Decoder(low, model.shape.vocab)


def paired(mended: list[Tensor], alone: list[Tensor]) -> tuple[float, float]:
    """How much more loss a token the first has, and its standard error over texts of one length."""
    apart = torch.stack([(b - a).mean() for a, b in zip(mended, alone, strict=True)])
    return float(apart.mean()), float(apart.std() / math.sqrt(len(apart)))


def main() -> None:
    """Train, measure, write tables and print what they say."""
    torch.set_num_threads(1)
    corpus = read_corpus()
    models: dict[tuple[int, int], Transformer] = {}
    rows = []
    for size in SIZES:
        shape = ladder_shape(size)
        for seed in SEEDS:
            models[size, seed] = taught(corpus, Transformer(shape, seed), seed, STEPS, 0.5 / shape.width)
            rows += rows_of(models[size, seed], size, seed, corpus)
        print(f"{size:,} parameters: loss {rows[-1 - len(BITS)]['loss']:.3f}", flush=True)
    pl.DataFrame(rows, infer_schema_length=None).write_csv(HERE / "rows.csv")
    for law in ("rejection", "rejection-step"):
        print(bl.fit(law, bl.Runs.from_rows(rows), hold_out=bl.largest()), flush=True)

    large, small = models[SIZES[-1], 0], models[SIZES[0], 0]
    tuned = Transformer(small.shape)
    tuned.load_state_dict(small.state_dict())
    tuned = taught(corpus, tuned, 9, TUNING, 0.25 / small.shape.width, capitals=True)
    windows = spread_windows(corpus.evaluation, TEXTS * SEQ, SEQ).inputs
    plain, capitals = windows.tolist(), loud(windows).tolist()
    prompts, said = [text[:PROMPT] for text in capitals], [text[PROMPT:] for text in capitals]
    held = [{bits: at_bits(model, bits) for bits in THREE} for model in (large, small, tuned)]
    size = large.shape.counts().non_embedding, *[small.shape.counts().non_embedding] * 2
    table = allocations(*held, size, prompts, said)
    names = ("base_bits", "reference_bits", "tuned_bits")
    pl.DataFrame(
        [
            {**dict(zip(names, way.bits, strict=True)), **{k: v for k, v in vars(way).items() if k != "bits"}}
            for way in table
        ]
    ).write_csv(HERE / "bits.csv")
    for name, source in (("large", held[0][16]), ("small", held[1][16]), ("small, tuned", held[2][16])):
        mean = torch.cat(log_likelihoods(source, prompts, said)).mean()
        print(f"{name}: loss on capitals {-float(mean):.3f}")
    for way in table:
        if sum(bits < 16 for bits in way.bits) < 2 or len(set(way.bits)) == 1:
            print(
                f"bits {way.bits}: loss {way.loss:.3f}, extra {way.extra:+.4f} ± {way.extra_se:.4f}, acceptance "
                f"{way.acceptance:.3f}, {way.ahead} ahead, speed {way.speed:.2f}"
            )
    for part, bits, price in first_to_lose(table):
        print(f"{part} to {bits} bits: {price:+.3f} nats for each megabyte saved")

    prompts, said = [text[:PROMPT] for text in plain], [text[PROMPT:] for text in plain]
    found = []
    for seed in SEEDS:
        large, small = models[SIZES[-1], seed], models[SIZES[0], seed]
        for bits in (2, 3, 4, 6):
            low_large, low_small, whole = at_bits(large, bits), at_bits(small, bits), at_bits(small, 16)
            alone = log_likelihoods(low_large, prompts, said)
            mended = log_likelihoods(emulate(low_large, low_small, whole), prompts, said)
            difference, se = paired(mended, alone)
            loss = -float(torch.cat(alone).mean())
            found.append({"seed": seed, "bits": bits, "loss": loss, "difference": difference, "se": se})
    pl.DataFrame(found).write_csv(HERE / "dequantised.csv")
    for row in found:
        print(
            f"seed {row['seed']}, {row['bits']} bits: loss {row['loss']:.3f}, emulated de-quantisation "
            f"{row['difference']:+.4f} ± {row['se']:.4f}"
        )


if __name__ == "__main__":
    main()
