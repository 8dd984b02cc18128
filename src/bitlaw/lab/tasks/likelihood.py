"""How likely a model finds one text after another, whatever its tokens are: what tasks of choices are scored by.

`lab.decode` reads on with a cache and refuses what no cache can hold. A task judges any model that can be run: texts
longer than its reach, letters that its tokenizer does not know, and scales that are of all tokens read at once; so
here every text is read from its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..decode import ends_of, limit_of
from ..model import Loaded
from ..precision.draws import seeded
from ..quantize.evaluate import AT_ONCE

BATCH = 16  # requests a forward pass
MOST = 2048  # tokens that a Hugging Face model is given at once, where it can read as many
BEFORE = ord("\n")  # what stands before a document of bytes, as in our corpora


@dataclass(frozen=True)
class Judged:
    """What a model came to on tasks.

    Attributes:
        error: mean share of wrong answers over the tasks that have right ones; None where none has.
        chance: mean accuracy of guessing on these; None with it.
        results: metrics of each task by its name.
    """

    error: float | None
    chance: float | None
    results: dict[str, dict[str, Any]]


class Judge(Protocol):
    """Tasks that any model can be judged on."""

    @property
    def digest(self) -> str:
        """Of all that the errors depend on but the model, as hexadecimal digits."""

    def judge(self, loaded: Loaded) -> Judged:
        """Answer all tasks."""


def encode(loaded: Loaded, text: str) -> list[int]:
    """A text in a model's tokens, without special ones; unknown letters become what the tokenizer makes of them."""
    if loaded.tokenizer is None:
        return list(text.encode())
    found: list[int] = loaded.tokenizer.encode(text, add_special_tokens=False).ids
    return found


def decode(loaded: Loaded, tokens: Sequence[int]) -> str:
    """The text of tokens; bytes that are no text become marks."""
    if loaded.tokenizer is None:
        return bytes(token & 0xFF for token in tokens).decode("utf-8", errors="replace")
    found: str = loaded.tokenizer.decode(list(tokens), skip_special_tokens=False)
    return found


def prefix(loaded: Loaded) -> int:
    """The token that stands before a text that nothing stands before: the begin or end of texts, else a line end."""
    config = getattr(getattr(loaded.model, "model", None), "config", None)
    for name in ("bos_token_id", "eos_token_id"):
        token = getattr(config, name, None)
        if isinstance(token, int) and 0 <= token < loaded.vocab:
            return token
    return (encode(loaded, "\n") or [BEFORE])[0]


def reach(loaded: Loaded) -> int:
    """Tokens that a model is given at once: as many as it was trained on, up to `MOST`."""
    return min(MOST, limit_of(loaded))


def split(loaded: Loaded, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of a context and of its continuation, as they come when both are read together.

    Spaces at the end of the context belong to the word after them, in whose token they are; a context that is empty
    becomes the token that stands before texts.

    >>> from bitlaw.formats import Scheme
    >>> ours = Loaded("a", "", torch.nn.Identity(), None, 256, 32, Scheme(), {})
    >>> split(ours, "ab ", "c"), split(ours, "", "c")
    (([97, 98], [32, 99]), ([10], [99]))
    """
    kept = context.rstrip()
    continuation, context = context[len(kept) :] + continuation, kept
    if not context:
        return [prefix(loaded)], encode(loaded, continuation)
    before, whole = encode(loaded, context), encode(loaded, context + continuation)
    return before, whole[len(before) :]


def continuations(
    loaded: Loaded, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], length: int | None = None
) -> list[tuple[float, bool]]:
    """Log-likelihood of each continuation after its context, in nats, and whether it is what greedy choice would say.

        sum_t log p(y_t | x, y_<t)

    A model that rounds activations may share a scale over all that it reads at once; it is given one text at a time.
    Of what is longer than a model's reach, the beginning is cut off.

    Args:
        loaded: the model.
        pairs: tokens of contexts, one at least, and of continuations.
        length: tokens that the model is given at once; None for its reach.
    """
    length = length or reach(loaded)
    out = [(0.0, True)] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda k: -len(pairs[k][0]) - len(pairs[k][1]))
    order = [k for k in order if len(pairs[k][1])]
    device = next(loaded.model.parameters()).device
    while order:
        longest = min(length, len(pairs[order[0]][0]) + len(pairs[order[0]][1]))
        fits = AT_ONCE // (4 * longest * loaded.vocab)  # logits in float32
        size = 1 if loaded.scheme.quantized else min(BATCH, max(1, fits))
        chosen, order = order[:size], order[size:]
        texts = [([*pairs[k][0], *pairs[k][1]])[-length - 1 :] for k in chosen]
        x_BT = torch.zeros(len(texts), max(map(len, texts)) - 1, dtype=torch.long)
        # What is filled in comes after, where a causal model has not looked.
        for row, text in enumerate(texts):
            x_BT[row, : len(text) - 1] = torch.tensor(text[:-1])
        with torch.inference_mode(), seeded(0, device):  # for models that round by chance
            z_BTV = loaded.model(x_BT.to(device))
        for k, text, z_TV in zip(chosen, texts, z_BTV, strict=True):
            count = min(len(pairs[k][1]), len(text) - 1)
            y = torch.tensor(text[-count:])
            own = z_TV[len(text) - 1 - count : len(text) - 1].float().log_softmax(-1).cpu()
            total = own.gather(1, y[:, None]).double().sum().item()
            out[k] = total, bool((own.argmax(-1) == y).all())
    return out


def greedy(loaded: Loaded, context: str, stops: Sequence[str], most: int, length: int | None = None) -> str:
    """What a model says after a context, the likeliest token each time, up to the first of some texts or its own end.

    Args:
        loaded: the model.
        context: what it is to go on from.
        stops: texts that end it, and are not part of it.
        most: tokens after which it ends.
        length: tokens that the model is given at once; None for its reach.
    """
    length = length or reach(loaded)
    tokens = encode(loaded, context) or [prefix(loaded)]
    device = next(loaded.model.parameters()).device
    said: list[int] = []
    over = ends_of(loaded)
    for _ in range(most):
        seen = torch.tensor([[*tokens, *said][-length:]], device=device)
        with torch.inference_mode(), seeded(0, device):
            token = int(loaded.model(seen)[0, -1].argmax())
        if token in over:
            break
        said.append(token)
        text = decode(loaded, said)
        ends = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
        if ends:
            return text[: min(ends)]
    return decode(loaded, said)
