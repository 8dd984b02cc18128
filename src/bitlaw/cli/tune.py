"""The verb that fine-tunes a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shell import printable
from .common import CorpusOption, JsonFlag, command_line, print_json
from .sweep import DeviceOption
from .train import stopping

if TYPE_CHECKING:
    from ..lab.sweep import Tuned


def tune(
    path: Annotated[str, typer.Argument(help="Folder of a model: config.json and safetensors.")],
    out: Annotated[Path, typer.Option(help="Folder for the tuned model; must not exist.")],
    tokens: Annotated[str, typer.Option(help="To train on, like 2M; text that is shorter is read again.")],
    corpus: CorpusOption = None,
    lora: Annotated[
        int,
        typer.Option(
            min=0,
            help="Rank of low-rank adapters, merged in the end (needs peft); 0: all weights are trained.",
        ),
    ] = 0,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate; default: a quarter of the one the model was trained at, or 2e-5, and 2e-4 with "
            "--lora, where its folder does not say."
        ),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(help="What to round while it trains and after, like w4 or w4a8; default: as the model."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows a step, each as long as the model's.")] = 16,
    eval_tokens: Annotated[
        int, typer.Option(min=1, help="Held-out tokens that are scored, at most.")
    ] = 16_384,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the text, and of adapters.")] = 0,
    device: DeviceOption = "auto",
    json_: JsonFlag = False,
) -> None:
    """Fine-tune a model to a text, and keep the result as a folder like any other.

    A fine-tune is training that begins with the weights of a folder: one of ours (`keep_models` in a study), or a
    Hugging Face folder of the Llama, Qwen, OLMo and GPT-NeoX families, on text in its own tokens. With --lora the
    weights stay, adapters are trained through the rounding of their sum, and are merged to the same logits. The gain
    is log-likelihood on held-out text of the corpus, in nats per token. Ctrl-C loses nothing: the same command goes on.

    * `bitlaw tune ./model --corpus ~/notes --tokens 2M --out ./tuned`
    * `bitlaw tune ./model --corpus ~/notes --tokens 2M --lora 8 --scheme w4 --out ./tuned-4-bit`
    * `bitlaw generate ./tuned --prompt "Dear "`: what it says now
    """
    from ..lab.corpus import read_corpus
    from ..lab.sweep import tune_folder
    from ..lab.train import Interrupted
    from ..study import Progress
    from ..units import parse_quantity
    from .progress import Reporter

    budget, seen = round(parse_quantity(tokens, "tokens")), 0

    def on_tokens(count: int) -> None:
        nonlocal seen
        seen += count
        reporter(Progress(seen, max(budget, seen), "tuning"))

    text = read_corpus(corpus)
    with Reporter() as reporter, stopping() as stop:
        try:
            tuned = tune_folder(
                path,
                text,
                out,
                tokens=budget,
                lora=lora,
                rate=rate,
                scheme=scheme,
                batch_size=batch_size,
                seed=seed,
                eval_tokens=eval_tokens,
                device=device,
                on_tokens=on_tokens,
                should_stop=stop,
            )
        except Interrupted:
            reporter.close()
            print("Stopped, and saved; run the same command to go on.", file=sys.stderr)
            raise typer.Exit(130) from None
    if json_:
        row = {key: value for key, value in tuned.row.items() if value is not None}
        print_json({"row": row, "loss_before": tuned.before.value, "gain": tuned.gain.value})
        return
    _show(tuned, out)


def _show(tuned: Tuned, out: Path) -> None:
    """Print what came of it."""
    row, gain = tuned.row, tuned.gain
    print(
        f"{row['parent']}, tuned ({row['tuning']}) to {printable(row['corpus'])}: {row['tokens']:,} tokens at rate "
        f"{row['learning_rate']:.3g}"
    )
    print(
        f"loss on {row['eval_tokens']:,} held-out tokens: {tuned.before.value:.4f} before, {row['loss']:.4f} after; "
        f"gain {gain.value:+.4f} ± {gain.se:.4f} nats per token"
    )
    print(
        f"Model: {printable(str(out))}; hear it with: {command_line('generate', str(out), ('--prompt', 'The '))}"
    )
