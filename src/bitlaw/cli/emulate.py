"""The verb that emulates the fine-tuning of a large model."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from .common import CorpusOption, JsonFlag, print_json, working
from .generate import (
    BeyondOption,
    CalibrationOption,
    PromptOption,
    PromptsOption,
    SeedOption,
    Teller,
    TokensOption,
    TopKOption,
    TopPOption,
    of_weights,
    prompts_of,
    room,
    source_of,
)
from .sweep import DeviceOption

if TYPE_CHECKING:
    from ..lab.decode import Round, Sampling, Source

FEW = 8  # tokens a text without which there is nothing to measure, and for each that is tried ahead
ROUNDED = 'Its number format, like w4, or "w=mxfp4, kv=int4 token"; default: what the folder says.'


def emulate(
    large: Annotated[str, typer.Option(help="Folder of the model whose knowledge is wanted, not tuned.")],
    small_base: Annotated[str, typer.Option(help="Folder of the one that was tuned, before that.")],
    small_tuned: Annotated[str, typer.Option(help="Folder of that one, tuned.")],
    large_scheme: Annotated[str | None, typer.Option(help=ROUNDED)] = None,
    small_base_scheme: Annotated[str | None, typer.Option(help=ROUNDED)] = None,
    small_tuned_scheme: Annotated[str | None, typer.Option(help=ROUNDED)] = None,
    method: Annotated[str, typer.Option(help="Of quantised weights: rtn, gptq or awq.")] = "rtn",
    beta: Annotated[float, typer.Option(help="How much of the tuning: 0 none, 1 all of it.")] = 1.0,
    amplify: Annotated[float, typer.Option(help="How much of the step in size: 0 none, 1 all of it.")] = 1.0,
    nucleus: Annotated[
        float | None,
        typer.Option(
            help="Take the step in size only for the fewest tokens with this share of the small tuned model's "
            "probability, like 0.95: the paper's filter."
        ),
    ] = None,
    prompt: PromptOption = None,
    prompts: PromptsOption = None,
    continuation: Annotated[
        str | None, typer.Option(help="Do not go on, but say how likely this is after each prompt.")
    ] = None,
    speculate: Annotated[
        int | None,
        typer.Option(min=0, help="Let the small tuned model draft so many tokens a pass; 0: as many as pay."),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="1 draws from the emulated distribution, 0 takes the likeliest token.")
    ] = 1.0,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    seed: SeedOption = 0,
    tokens: TokensOption = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="A token that ends a text; default: the end that the small tuned model's folder names."
        ),
    ] = None,
    beyond: BeyondOption = False,
    text: CorpusOption = None,
    calibration_tokens: CalibrationOption = 8_192,
    device: DeviceOption = "auto",
    json_: JsonFlag = False,
) -> None:
    """Emulate the fine-tuning of a large model by that of a small one, without tuning it.

    log p = log p_large + beta (log p_small_tuned - log p_small_base) - log Z, token by token (Mitchell et al. 2023,
    2310.12962). The three models have one tokenizer; each may be in a number format of its own. With a large model that
    is smaller than the others it is the other way about: their tuning, its size. With `--speculate` texts are others
    than without, of the same distribution, and the likeliest is the same.

    * `bitlaw emulate --large ./big --small-base ./base --small-tuned ./chat --prompt "Once"`
    * `bitlaw emulate --large ./big --large-scheme w4 --small-base ./base --small-tuned ./chat --prompt A --speculate 0`
    * `bitlaw emulate --large ./big --small-base ./base --small-tuned ./chat --prompt "Q: " --continuation "yes" --json`
    """
    from ..lab.decode import Sampling, check, encode, ends_of, limit_of, log_likelihoods, number_of
    from ..lab.decode import emulate as emulated
    from ..lab.model import load_model
    from ..lab.sweep.processes import device_named

    sampling = Sampling(temperature, top_k, top_p)
    begun = prompts_of(prompt, prompts)
    if continuation is not None and speculate is not None:
        raise ConfigError(
            "a continuation is given or drafted, not both; leave out --continuation or --speculate"
        )
    if continuation is not None and (tokens is not None or stop):
        raise ConfigError("a continuation is scored, and nothing is drawn; leave out --tokens and --stop")
    of_weights(method, [large_scheme, small_base_scheme, small_tuned_scheme], "--large-scheme")
    with working("reading the models") as tell:
        there = device_named(device)
        folders = (large, small_base, small_tuned)
        loaded = {folder: load_model(folder, there) for folder in dict.fromkeys(folders)}
        ways = list(zip(folders, (large_scheme, small_base_scheme, small_tuned_scheme), strict=True))
        tuned = loaded[small_tuned]
        read = [encode(tuned, words) for words in begun]
        more = None if continuation is None else encode(tuned, continuation, special=False)
        ends = frozenset(number_of(tuned, words) for words in stop) if stop else ends_of(tuned)
        lowest = None if beyond else min(map(limit_of, loaded.values()))
        tokens = tokens or room(read, lowest)
        check(read, tokens if more is None else len(more), lowest, seed)
        tell("putting them into their formats")
        made = {}
        for folder, scheme in dict.fromkeys(ways):
            made[folder, scheme] = source_of(loaded[folder], beyond, scheme, method, text, calibration_tokens)
        sources: list[Source] = [made[way][0] for way in ways]
        target = emulated(*sources, beta=beta, amplify=amplify, nucleus=nucleus)
    formats = {
        name: made[way][1] for name, way in zip(("large", "small_base", "small_tuned"), ways, strict=True)
    }
    notes = list(dict.fromkeys(note for _, _, found in made.values() for note in found))
    for note in notes:
        print(note, file=sys.stderr)
    about: dict[str, Any] = {"models": dict(zip(formats, folders, strict=True)), "schemes": formats}
    about |= {
        "method": method,
        "beta": beta,
        "amplify": amplify,
        "nucleus": nucleus,
        "seed": seed,
        "notes": notes,
    }
    if more is not None:
        scores = log_likelihoods(target, read, [more] * len(read), sampling)
        sums = [float(each.sum()) for each in scores]
        if json_:
            likely = [value if value > float("-inf") else None for value in sums]  # JSON has no infinity
            print_json(about | {"log_likelihoods": likely, "tokens": len(more)})
            return
        for words, value in zip(begun, sums, strict=True):
            print(f"{value:10.4f} nats for {len(more)} tokens after {ascii(words)}")
        return
    spoken = _Spoken(target, sources[2], sampling, tokens, seed, ends, speculate)
    told = Teller(tuned, begun, read, ends, quiet=json_)
    drawn, seconds = told.tell(spoken.speak(read), tokens)
    if json_:
        print_json(
            about
            | {"texts": told.as_json(), "tokens": drawn, "seconds": seconds, "speculation": spoken.as_json()}
        )
        return
    print(f"{drawn:,} tokens in {seconds:.1f} s, {drawn / seconds:.3g} a second{spoken}", file=sys.stderr)


@dataclass
class _Spoken:
    """How texts are drawn, with a draft or without, and what came of the draft."""

    target: Source
    draft: Source
    sampling: Sampling
    tokens: int
    seed: int
    ends: Collection[int]
    ahead: int | None
    rounds: list[Round] = field(default_factory=list)

    def speak(self, prompts: Sequence[Sequence[int]]) -> Any:
        """Yield the number of a prompt and the next token of its text."""
        from ..lab.decode import speculations, stream

        if self.ahead == 0:
            self.ahead = self._chosen(prompts) if self.tokens >= FEW else None
        if self.ahead is None:
            yield from stream(
                self.target, prompts, self.tokens, self.sampling, seed=self.seed, stop=self.ends
            )
            return
        for row, prompt in enumerate(prompts):
            for done in speculations(
                self.target, self.draft, prompt, self.tokens, self.sampling,
                ahead=self.ahead, seed=self.seed, number=row, stop=self.ends,
            ):  # fmt: skip
                self.rounds.append(done)
                yield from ((row, token) for token in done.tokens)

    def _chosen(self, prompts: Sequence[Sequence[int]]) -> int | None:
        """How far the draft should go ahead; None where it does not pay."""
        from ..lab.decode import rehearse
        from ..lab.decode.lookahead import MOST

        most = min(MOST, self.tokens // FEW)
        found = rehearse(
            self.target, self.draft, prompts[:4], self.tokens - most, self.sampling, most=most, seed=self.seed
        )
        return found.ahead or None

    def as_json(self) -> dict[str, Any] | None:
        """Counts; None where nothing was drafted."""
        if not self.rounds:
            return None
        return {
            "ahead": self.ahead,
            "rounds": len(self.rounds),
            "judged": sum(each.judged for each in self.rounds),
            "accepted": sum(each.accepted for each in self.rounds),
        }

    def __str__(self) -> str:
        if not self.rounds:
            return ""
        counts = self.as_json() or {}
        return (
            f"; {counts['ahead']} tokens ahead, {counts['accepted']:,} of {counts['judged']:,} drafted ones accepted, "
            f"{counts['rounds']:,} passes"
        )
