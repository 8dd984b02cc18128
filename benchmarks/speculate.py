"""How much faster a trained model speaks with a draft, predicted and measured. Times are CPU seconds of one core.

    python benchmarks/speculate.py                       # three minutes: trains, distils, rehearses, measures
    python benchmarks/speculate.py --keep ./models       # the same, and the models are there the next time

The target has 12 blocks and is trained on the standard library's sources; the draft has one, and is trained to say what
the target says (distillation). The prediction is made by `rehearse` on every other prompt, the measurement on the rest;
plain and speculative decoding take turns, prompt by prompt. At batch 1 a CPU spends its time on calls rather than on
arithmetic, so that a pass over several tokens costs about that over one, as where hardware waits for memory.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from bitlaw import Scheme
from bitlaw.lab.corpus import Corpus, batch, read_corpus, spread_windows
from bitlaw.lab.decode import Decoder, Sampling, acceptance, generate, rehearse, speculate
from bitlaw.lab.model import Loaded, Transformer, load_model, save_model
from bitlaw.lab.quantize import quantize_parts
from bitlaw.shapes import Shape

TARGET = Shape(width=64, depth=12, heads=4, ffn=160)
DRAFT = Shape(width=128, depth=1, heads=4, ffn=320)
SEQ, BATCH = 64, 12
WAYS = {
    "temperature 1": Sampling(),
    "temperature 0.7, top-p 0.95": Sampling(temperature=0.7, top_p=0.95),
    "the likeliest": Sampling(temperature=0),
}


def trained(
    model: Transformer, corpus: Corpus, steps: int, teacher: Transformer | None = None
) -> Transformer:
    """Train a model on text, or on what a teacher says of each next token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    warm, clock = min(20, steps // 4), time.process_time()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 4e-3 * min((step + 1) / warm, 1.05 - step / steps)
        x, y = batch(corpus, 0, step, BATCH, SEQ)
        logits = model(x).flatten(0, 1)
        if teacher is None:
            loss = F.cross_entropy(logits, y.flatten())
        else:
            with torch.inference_mode():
                aim = teacher(x).flatten(0, 1).softmax(-1)
            loss = F.cross_entropy(logits, aim.clone())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.process_time() - clock
    print(
        f"{model.shape.depth} blocks: loss {float(loss.detach()):.3f} after {steps} steps, {seconds:.0f} s",
        flush=True,
    )
    return model.eval()


def models(corpus: Corpus, steps: int, keep: Path | None) -> tuple[Transformer, Transformer]:
    """Target and draft, from a folder where they are there already."""
    found: list[Transformer] = []
    for name, shape in (("target", TARGET), ("draft", DRAFT)):
        if keep is not None and (keep / name).is_dir():
            model = load_model(keep / name).model
        else:
            model = trained(Transformer(shape, seed=len(found)), corpus, steps, found[0] if found else None)
            if keep is not None:
                save_model(Loaded(name, "", model, None, shape.vocab, SEQ, Scheme(), {}), keep / name)
        found.append(model)  # type: ignore[arg-type]
    return found[0], found[1]


def timed(
    target: Decoder, draft: Decoder, prompts: list[list[int]], tokens: int, sampling: Sampling, ahead: int
) -> tuple[float, float]:
    """How many times as fast as plain decoding speculation is, and its acceptance."""
    plain = fast = 0.0
    rounds = []
    for seed, prompt in enumerate(prompts):
        times = [time.process_time()]
        [text] = generate(target, [prompt], tokens, sampling, seed=seed)
        times.append(time.process_time())
        drafted = speculate(target, draft, prompt, tokens, sampling, ahead=ahead, seed=seed)
        times.append(time.process_time())
        plain, fast = plain + times[1] - times[0], fast + times[2] - times[1]
        rounds += drafted.rounds
        if sampling.temperature == 0 and drafted.tokens != text.tokens:
            print("  a tie was broken the other way: the likeliest texts differ")
    return plain / fast, acceptance(rounds)


def main() -> None:
    """Print a line for each way of drawing."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--steps", type=int, default=500)
    arguments.add_argument("--prompts", type=int, default=12)
    arguments.add_argument("--tokens", type=int, default=100)
    arguments.add_argument("--keep", type=Path, help="folder of the two models")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    corpus = read_corpus()
    large, small = models(corpus, given.steps, given.keep)
    texts = spread_windows(corpus.evaluation, given.prompts * SEQ, SEQ).inputs[:, :16].tolist()
    target = Decoder(large, TARGET.vocab)
    drafts = {
        "1 block": Decoder(small, DRAFT.vocab),
        "4-bit copy": Decoder(quantize_parts(large, Scheme.parse("w4")), TARGET.vocab),
    }
    for name, sampling in WAYS.items():
        found = rehearse(
            target, drafts["1 block"], texts[::2], given.tokens, sampling, clock=time.process_time
        )
        costs = found.costs
        print(
            f"{name}: acceptance {found.acceptance:.3f} of {found.judged:,}; a token {1e3 * costs.plain:.2f} ms, "
            f"drafted {1e3 * costs.draft:.2f}, verifying {', '.join(f'{1e3 * v:.2f}' for v in costs.verify)}"
        )
        ahead = max(1, found.ahead)
        measured, accepted = timed(target, drafts["1 block"], texts[1::2], given.tokens, sampling, ahead)
        predicted = costs.speedup(found.acceptance, ahead)
        there = costs.speedup(accepted, ahead)
        print(
            f"  {ahead} ahead: predicted {predicted:.2f}, measured {measured:.2f} ({predicted / measured - 1:+.0%}); "
            f"acceptance {accepted:.3f}, with which {there:.2f} would have been predicted",
            flush=True,
        )
    # Arithmetic of low precision is emulated, so that only the acceptance of such a draft means something here.
    _, accepted = timed(target, drafts["4-bit copy"], texts[1::2], given.tokens, Sampling(), 4)
    print(f"a copy of the target with weights in 4 bits: acceptance {accepted:.3f}")


if __name__ == "__main__":
    main()
