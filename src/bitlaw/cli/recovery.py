"""The verb that linearises a quantised model, so that plans can say how long it takes to come back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import CorpusOption, JsonFlag, print_json


def recovery(
    path: Annotated[str, typer.Argument(help="Folder of a model of ours (`keep_models` in a study).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the record to.")],
    scheme: Annotated[
        str,
        typer.Option(
            help='What it is quantised to while it is trained: "w3", "w=int4 group64, a=int8 token".'
        ),
    ] = "w3",
    windows: Annotated[int, typer.Option(min=2, help="Of training text that is linearised.")] = 256,
    measured: Annotated[int, typer.Option(min=1, help="Held-out windows whose loss is predicted.")] = 32,
    directions: Annotated[int, typer.Option(min=1, help="Of weight space that are kept.")] = 24,
    classes: Annotated[int, typer.Option(min=2, help="Likeliest tokens kept of each prediction.")] = 64,
    adam: Annotated[bool, typer.Option(help="For Adam, whose scales are taken from these windows.")] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Windows a step of that training, which Adam's scales hang on; default: at most 8."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the training windows.")] = 0,
    text: CorpusOption = None,
    json_: JsonFlag = False,
) -> None:
    """Linearise a quantised model where it stands: `bitlaw plan --record` then says how many steps bring it back.

    Nothing is trained but for ten steps that tell whether the straight line holds. For models of 12k to 48k parameters
    this takes longer than the training that it predicts (docs/log.md); larger ones were not tried.

    * `bitlaw task recovery sweep-mine/models/ID --scheme w3 -o record`
    * `bitlaw plan --record record --learning-rate 0.05 --within 0.01 --batch 8`
    """
    import torch
    from torch.nn.functional import cross_entropy

    from ..errors import ConfigError, DataError
    from ..fitting.result import plain
    from ..formats import Scheme
    from ..lab.corpus import batch as batch_of
    from ..lab.corpus import read_corpus, spread_windows
    from ..lab.dynamics import linearise, second_moments
    from ..lab.model import Transformer, load_model
    from ..lab.precision import apply_scheme
    from ..planning.recovery import LAZY

    batch_size = batch or min(8, windows)
    if batch_size > windows:
        raise ConfigError(f"a batch of {batch_size} of {windows} windows; give more --windows")
    loaded = load_model(path)
    if not isinstance(loaded.model, Transformer) or loaded.scheme.quantized:
        raise DataError(
            f"{path} holds no model of ours in 16 bits; keep one with keep_models = true in a study"
        )
    corpus = read_corpus(text, str(loaded.row.get("tokenizer") or "bytes"))
    x, y = batch_of(corpus, seed, 0, windows, loaded.seq_len)
    held = spread_windows(corpus.evaluation, measured * loaded.seq_len, loaded.seq_len)
    inputs, targets = torch.cat([x, held.inputs]), torch.cat([y, held.targets])

    def loss_of(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return float(cross_entropy(model(held.inputs).flatten(0, 1), held.targets.flatten()))

    before = loss_of(loaded.model)
    model = apply_scheme(loaded.model, Scheme.parse(scheme))
    after = loss_of(model)
    found = linearise(
        model,
        inputs,
        targets,
        trained=windows,
        reference=before,
        directions=directions,
        classes=classes,
        second_moments=second_moments(model, x, y, batch_size) if adam else None,
        batch=batch_size if adam else 0,
    )
    found.save(out)
    said = {
        "record": str(out),
        "reference": before,
        "loss": after,
        "drift": found.drift,
        "progress": found.progress,
    }
    if json_:
        print_json(plain({**said, "seconds": found.seconds}))
        return
    print(
        f"Wrote {out} in {found.seconds:.0f} s; the loss is {after:.4f}, and was {before:.4f} before quantisation."
    )
    print(
        f"Ten small steps turn the gradient by {found.drift:.0%}, and gain {found.progress:.0%} of what a line gains."
    )
    if found.drift > LAZY:
        print(
            f"More than {LAZY:.0%}: the model does not stay what it is, and a straight line says nothing of its way."
        )
    elif after > before:
        rate = "0.001" if adam else "0.05"
        print(
            f"Now: bitlaw plan --record {out} --learning-rate {rate} --within {(after - before) / 2:.2g} "
            f"--batch {batch_size}"
        )
