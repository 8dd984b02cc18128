"""The verb that compares bit allocations of the three models of an emulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from .common import CorpusOption, JsonFlag, print_json, working
from .generate import CalibrationOption, source_of
from .sweep import DeviceOption

if TYPE_CHECKING:
    from ..lab.decode import Allocation

TEXTS = 48  # windows of held-out text, the first eighth of each as prompt
SHOWN = 24
NAMES = {"base": "the large model", "reference": "the small base", "tuned": "the small tuned model"}


def allocate(
    large: Annotated[str, typer.Option(help="Folder of the model whose knowledge is wanted, not tuned.")],
    small_base: Annotated[str, typer.Option(help="Folder of the one that was tuned, before that.")],
    small_tuned: Annotated[str, typer.Option(help="Folder of that one, tuned.")],
    bits: Annotated[str, typer.Option(help="Of a weight, to try for each: 16 and 2 to 8.")] = "16,6,4,3",
    method: Annotated[str, typer.Option(help="Of quantised weights: rtn, gptq or awq.")] = "rtn",
    beta: Annotated[float, typer.Option(help="How much of the tuning: 0 none, 1 all of it.")] = 1.0,
    text: CorpusOption = None,
    calibration_tokens: CalibrationOption = 8_192,
    device: DeviceOption = "auto",
    json_: JsonFlag = False,
) -> None:
    """Compare all bit allocations of the three models of `bitlaw emulate`, and say which should lose bits first.

    Likelihood is of held-out text of `--text`, which should be in the manner of the tuned model. Speed is that of
    hardware whose time goes into reading weights, with the small tuned model as draft, as far ahead as is best.

    * `bitlaw allocate --large ./big --small-base ./base --small-tuned ./chat --text chats.txt`
    * `bitlaw allocate --large ./big --small-base ./base --small-tuned ./chat --bits 16,4 --method gptq --json`
    """
    from ..fitting.result import plain
    from ..lab.corpus import read_corpus, spread_windows
    from ..lab.decode import allocations, first_to_lose
    from ..lab.model import load_model
    from ..lab.quantize.settings import Setting, bytes_read
    from ..lab.sweep.folders import encoded
    from ..lab.sweep.processes import device_named

    choices = _read(bits)
    with working("reading the models") as tell:
        there = device_named(device)
        models = [load_model(folder, there) for folder in (large, small_base, small_tuned)]
        for model in models:
            if model.scheme.quantized:
                raise ConfigError(
                    f"{model.name} rounds {model.scheme.name} already; name the folder that it was made from"
                )
        tell("reading the text")
        corpus, length = read_corpus(text), min(model.seq_len for model in models)
        held_out = encoded(models[2], corpus.evaluation)
        windows = spread_windows(
            held_out, min(TEXTS * length, len(held_out.tokens) - 1), length
        ).inputs.tolist()
        sources = []
        for model in models:
            tell(f"putting {model.name} into its formats")
            schemes = {b: None if b == 16 else f"w{b}" for b in choices}
            sources.append(
                {
                    b: source_of(model, False, s, method, text, calibration_tokens)[0]
                    for b, s in schemes.items()
                }
            )
        tell("scoring")
        forms = {b: Setting.of(method, "bf16" if b == 16 else f"int{b}") for b in choices}
        sizes = [{b: bytes_read(model.model, form) for b, form in forms.items()} for model in models]
        prompt = max(1, length // 8)
        prompts, said = [w[:prompt] for w in windows], [w[prompt:] for w in windows]
        table = allocations(*sources, sizes, prompts, said, beta=beta)
    steps = first_to_lose(table)
    about = f"{len(windows)} texts of {length - prompt} tokens of {corpus.name}"
    if json_:
        first = [{"model": part, "bits": bits, "nats_per_megabyte": price} for part, bits, price in steps]
        print_json(plain({"text": about, "ways": [vars(way) for way in table], "first_to_lose": first}))
        return
    _print(table, f"After {about}")
    part, fewer, price = steps[0]
    print(
        f"First to lose bits: {NAMES[part]}, to {fewer:g}, at {price:+.4f} nats per token for each MB saved."
    )


def _print(table: Sequence[Allocation], about: str) -> None:
    """Print the ways that no other beats in both likelihood and bytes."""
    from rich.console import Console
    from rich.table import Table

    best = sorted((way for way in table if not _beaten(way, table)), key=lambda way: -way.bytes)[:SHOWN]
    shown = Table(
        title=f"Ways that no other beats in both nats and bytes, of {len(table)}", title_justify="left",
        caption=f"{about}; ± is a standard error over texts. Speed over the most bits for all three, without a draft.",
        caption_justify="left",
    )  # fmt: skip
    for name in (
        "large",
        "small base",
        "small tuned",
        "nats per token more",
        "MB a pass",
        "accepted",
        "speed",
    ):
        shown.add_column(name, justify="right")
    for way in best:
        shown.add_row(
            *(f"{bits:g}" for bits in way.bits),
            f"{way.extra:+.4f} ± {way.extra_se:.4f}",
            f"{way.bytes / 1e6:.3g}",
            f"{way.acceptance:.3f}",
            f"{way.speed:.2f} ({way.ahead} ahead)",
        )
    Console(highlight=False).print(shown)


def _read(bits: str) -> list[int]:
    """The numbers of bits that are tried, the most first."""
    try:
        found = sorted({int(word) for word in bits.split(",")}, reverse=True)
    except ValueError:
        found = []
    if len(found) < 2 or not all(2 <= b <= 8 or b == 16 for b in found):
        raise ConfigError(f"bits are two or more of 16 and 2 to 8, like 16,4,3, not {bits!r}")
    return found


def _beaten(way: Allocation, table: Sequence[Allocation]) -> bool:
    """Whether another way has no more nats and no more bytes, and less of one."""
    own = (way.extra, way.bytes)
    return any(
        other.extra <= way.extra and other.bytes <= way.bytes and (other.extra, other.bytes) != own
        for other in table
    )
