"""The verb that generates text."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, DataError
from ..shell import printable
from .common import CorpusOption, JsonFlag, print_json, working
from .sweep import DeviceOption

if TYPE_CHECKING:
    from torch import Tensor

    from ..lab.decode import Decoder
    from ..lab.model import Loaded

USUAL = 200  # tokens, where there is room for as many

# Options of the verbs that draw text.
PromptOption = Annotated[
    list[str] | None, typer.Option(help="What the text begins with; may be given often.")
]
PromptsOption = Annotated[Path | None, typer.Option(help="A file of prompts, one a line.")]
TopKOption = Annotated[int | None, typer.Option(help="Draw from so many likeliest tokens.")]
TopPOption = Annotated[
    float | None,
    typer.Option(help="Draw from the fewest tokens with this share of the probability, like 0.95."),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Another seed draws other texts.")]
TokensOption = Annotated[
    int | None,
    typer.Option(min=1, help=f"To draw at most; default: {USUAL}, or what the model has room for."),
]
BeyondOption = Annotated[
    bool,
    typer.Option(
        "--beyond", help="Go on beyond the length that the model was trained on; a sliding window then grows."
    ),
]
CalibrationOption = Annotated[
    int, typer.Option(min=2, help="Tokens of the text that gptq, awq and static scales are found on.")
]


def generate(
    path: Annotated[str, typer.Argument(help="Folder of a model: config.json and safetensors.")],
    prompt: PromptOption = None,
    prompts: PromptsOption = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            help='What to round, like w4, w4a8kv4, or "w=mxfp4, a=int8 token, kv=int4 token"; default: what the '
            "folder says."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Of the weights: rtn, gptq or awq.")] = "rtn",
    temperature: Annotated[
        float, typer.Option(help="1 draws from the model's own distribution, 0 takes the likeliest token.")
    ] = 1.0,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    seed: SeedOption = 0,
    tokens: TokensOption = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="A token that ends a text; may be given often. Default: the end that a Hugging Face folder names."
        ),
    ] = None,
    beyond: BeyondOption = False,
    batch: Annotated[int, typer.Option(min=1, help="Prompts that are read together.")] = 16,
    text: CorpusOption = None,
    calibration_tokens: CalibrationOption = 8_192,
    device: DeviceOption = "auto",
    json_: JsonFlag = False,
) -> None:
    """Generate text with a model, in any number format.

    Models of ours (`keep_models` in a study) and Hugging Face folders of the Llama, Qwen, OLMo and GPT-NeoX families.
    Keys and values are cached in their format. The same seed gives the same text, whatever the batch. Where one scale
    would be of a whole tensor (`a8`, `kv4`), it is found on `--text` first and then stays. Low precision is emulated:
    what is said is what such hardware would say, how fast says nothing of it.

    * `bitlaw generate ./model --prompt "def main("`: as the model is
    * `bitlaw generate ./model --prompt "import " --scheme w4 --method gptq --temperature 0`: the likeliest in 4 bits
    * `bitlaw generate ./model --prompts lines.txt --scheme "w=mxfp4, a=int8 token, kv=int4 token" --top-p 0.95 --json`
    """
    from ..lab.decode import Sampling, check, encode, ends_of, limit_of, number_of, stream
    from ..lab.model import load_model
    from ..lab.sweep.processes import device_named

    sampling = Sampling(temperature, top_k, top_p)
    begun = prompts_of(prompt, prompts)
    of_weights(method, [scheme])
    with working("reading the model") as tell:
        loaded = load_model(path, device_named(device))
        read = [encode(loaded, words) for words in begun]
        ends = frozenset(number_of(loaded, words) for words in stop) if stop else ends_of(loaded)
        limit = None if beyond else limit_of(loaded)
        tokens = tokens or room(read, limit)
        check(read, tokens, limit, seed, batch)
        tell("putting it into its formats")
        source, formats, notes = source_of(loaded, beyond, scheme, method, text, calibration_tokens)
    for note in notes:
        print(note, file=sys.stderr)
    told = Teller(loaded, begun, read, ends, quiet=json_)
    drawn, seconds = told.tell(
        stream(source, read, tokens, sampling, seed=seed, stop=ends, batch=batch), tokens
    )
    if json_:
        about = {"model": loaded.name, "scheme": formats, "method": method, "seed": seed}
        print_json(about | {"texts": told.as_json(), "tokens": drawn, "seconds": seconds, "notes": notes})
        return
    slow = "" if formats == "16" else "; formats are emulated, so this is not their speed"
    print(f"{drawn:,} tokens in {seconds:.1f} s, {drawn / seconds:.3g} a second{slow}", file=sys.stderr)


def of_weights(method: str, schemes: Sequence[str | None], option: str = "--scheme") -> None:
    """Refuse a method for weights where none are quantised."""
    from ..formats import Scheme

    if method in ("gptq", "awq") and not any(
        Scheme.parse(scheme).w.quantized for scheme in schemes if scheme
    ):
        raise ConfigError(
            f"--method {method} is of weights, and none are quantised; add {option} w4, or leave it out"
        )


def room(prompts: Sequence[Sequence[int]], limit: int | None) -> int:
    """Tokens that are drawn where nobody says how many."""
    return USUAL if limit is None else max(1, min(USUAL, limit - max(map(len, prompts))))


def prompts_of(given: list[str] | None, path: Path | None) -> list[str]:
    """What the texts begin with."""
    found = list(given or ())
    if path is not None:
        try:
            found += [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        except FileNotFoundError:
            raise DataError(f"there is no file {path}; name one with a prompt a line") from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read prompts from {path}: {error}") from error
    if not found:
        raise ConfigError('there is nothing to go on from; give --prompt "def main(", or --prompts FILE')
    return found


def source_of(
    loaded: Loaded, beyond: bool, scheme: str | None, method: str, text: str | None, tokens: int
) -> tuple[Decoder, str, list[str]]:
    """A model in its formats, ready to read on, the scheme that these are, and what is to be said of these."""
    from ..formats import Scheme
    from ..lab.corpus import read_corpus, spread_windows
    from ..lab.decode import Decoder, in_formats
    from ..lab.sweep.folders import encoded

    @cache
    def windows() -> tuple[Tensor, str]:
        corpus = read_corpus(text)
        found = spread_windows(encoded(loaded, corpus.calibration), tokens, loaded.seq_len)
        return found.inputs.to(next(loaded.model.parameters()).device), corpus.name

    asked = Scheme() if scheme is None else Scheme.parse(scheme)
    made, recipes = in_formats(loaded, asked, method, lambda: windows()[0])
    notes = []
    if recipes:
        shown, name = windows()
        notes.append(
            f"The scales of {' and '.join(sorted(map(str, recipes)))} were found on {shown.numel():,} tokens of "
            f"{name}, and stay; --text names another text."
        )
    return Decoder.of(made, limited=not beyond), made.scheme.name, notes


class Teller:
    """Prints one text as it comes, or several when they are there."""

    def __init__(
        self,
        loaded: Loaded,
        prompts: list[str],
        read: Sequence[Sequence[int]],
        ends: Collection[int],
        quiet: bool,
    ) -> None:
        from ..lab.decode import Spelling

        self.prompts, self.ends, self.quiet = prompts, ends, quiet
        self.live = len(prompts) == 1 and not quiet
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.words = [""] * len(prompts)
        self.spelling = [Spelling(loaded, tokens) for tokens in read]
        if self.live:
            self._print(prompts[0])

    def tell(self, drawn: Iterable[tuple[int, int]], most: int) -> tuple[int, float]:
        """Print texts from tokens with their prompts' numbers, `most` of each at most; return their count and seconds.

        Raises:
            typer.Exit: of code 130, after Ctrl-C, when what there is has been printed.
        """
        clock = time.perf_counter()
        try:
            with nullcontext(lambda words: None) if self.live else working("reading the prompts") as tell:
                for row, token in drawn:
                    self.add(row, token)
                    tell(f"{sum(map(len, self.tokens)):,} of {len(self.prompts) * most:,} tokens")
        except KeyboardInterrupt:
            self.end()
            print("Stopped.", file=sys.stderr)
            raise typer.Exit(130) from None
        seconds = time.perf_counter() - clock
        self.end()
        return sum(map(len, self.tokens)), seconds

    def add(self, row: int, token: int) -> None:
        """Take a token of a text; the one that ends it is not shown."""
        self.tokens[row].append(token)
        if token not in self.ends:
            self._more(row, self.spelling[row].add(token))

    def end(self) -> None:
        """Show what has not been shown."""
        for row, spelling in enumerate(self.spelling):
            self._more(row, spelling.rest())
            if not self.live and not self.quiet:
                print(f"[{row + 1}]")
                self._print(self.prompts[row] + self.words[row])
                print()
        if self.live:
            print()

    def as_json(self) -> list[dict[str, Any]]:
        """Each text."""
        return [
            {
                "prompt": prompt,
                "text": words,
                "tokens": tokens,
                "stopped": bool(tokens) and tokens[-1] in self.ends,
            }
            for prompt, words, tokens in zip(self.prompts, self.words, self.tokens, strict=True)
        ]

    def _more(self, row: int, words: str) -> None:
        self.words[row] += words
        if self.live:
            self._print(words)

    def _print(self, words: str) -> None:
        """Print letters, and no others: a model can be made to say what would steer a terminal."""
        print("\t".join(map(printable, words.split("\t"))), end="", flush=True)
