"""A model that reads on: given new tokens of a batch of texts, what it says of the token after each.

What `generate` asks is in two protocols, so that something else than one model may answer: several whose logits are
put together, or a draft and the model that checks it. Speculation needs of a session

    * `append([[t], ...])`: a draft's next logits, one token at a time;
    * `append([[t_1, ..., t_k], ...])`: a large model's logits after each of k tokens, in one pass;
    * `truncate(lengths)`: to forget what was rejected, in each text by itself.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...errors import ConfigError, DataError, LabError
from ..model import KVCache, Loaded
from ..model.pretrained import Pretrained
from ..precision import settle
from ..precision.draws import seeded
from ..precision.static import uncacheable

AT_ONCE = 128  # tokens of a prompt a pass, as logits of all of them are made


class Session(Protocol):
    """Texts that are read on."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text so far."""
        ...

    def append(self, new: Sequence[Sequence[int]]) -> list[Tensor]:
        """Read new tokens of each text, none or more, and return the logits after each of them, (tokens, V) a text."""
        ...

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget the tokens of each text behind a length."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the texts, in this order."""
        ...


class Source(Protocol):
    """What sessions come from."""

    @property
    def vocab(self) -> int:
        """Tokens that logits are of."""
        ...

    @property
    def tokenizer_sha256(self) -> str:
        """Of the tokenizer: logits of two sources are of the same tokens where this is the same."""
        ...

    @property
    def limit(self) -> int | None:
        """Tokens that a text may have; None for any number."""
        ...

    def open(self, rows: int) -> Session:
        """Begin with so many empty texts."""
        ...


class Decoder:
    """One model as a source.

    Cached logits are those of the whole text read at once, up to rounding: in float64 to 1e-9; in float32 a number
    that lies within the last bits of the middle between two grid values may fall to the other one, as it may when the
    batch is larger. `model.double()` takes that away.

    Attributes:
        model: in evaluation mode; weights of low precision are settled in a copy, so that none is rounded at each step.
        vocab, tokenizer_sha256, limit: as of any `Source`.

    Args:
        model: of ours, or `Pretrained`.
        vocab: tokens that it knows; logits of others are left out.
        tokenizer: of the library `tokenizers`; None means bytes.
        limit: tokens that a text may have; None for any number.

    Raises:
        ConfigError: what the model makes of a token hangs on later ones or on chance, so that no cache can hold it.

    >>> from bitlaw.lab.model import Transformer
    >>> from bitlaw.shapes import Shape
    >>> session = Decoder(Transformer(Shape(width=16, depth=1, heads=2, ffn=24)), vocab=256).open(2)
    >>> [tuple(logits.shape) for logits in session.append([b"To be", b"Or"])], session.lengths
    ([(5, 256), (2, 256)], [5, 2])
    >>> session.truncate([3, 2])
    >>> [tuple(logits.shape) for logits in session.append([b"", b"?"])], session.lengths
    ([(0, 256), (1, 256)], [3, 3])
    """

    def __init__(self, model: nn.Module, vocab: int, tokenizer: Any = None, limit: int | None = None) -> None:
        for name, recipe in uncacheable(model):
            what = (
                "rounds by chance"
                if recipe.rounding == "stochastic"
                else "has one scale for all tokens read at once"
            )
            raise ConfigError(
                f"{name} with '{recipe}' {what}, so that no cache holds what the model would make of a whole text; try "
                f"'{recipe.format.name} token', or give text to find static scales on: static_scales(model, windows)"
            )
        rounders = (getattr(module, "quantize_weight", nn.Identity()) for module in model.modules())
        if not all(isinstance(rounder, nn.Identity) for rounder in rounders):
            model = copy.deepcopy(model)
            with seeded(0, next(model.parameters()).device):  # for weights that are rounded by chance
                for module in model.modules():
                    settle(module)
        self.model, self.vocab, self.limit = model.eval(), vocab, limit
        known = "bytes" if tokenizer is None else tokenizer.to_str()
        self.tokenizer_sha256 = hashlib.sha256(known.encode()).hexdigest()

    @classmethod
    def of(cls, loaded: Loaded, limited: bool = True) -> Decoder:
        """A decoder of a model from a folder, for texts as long as it was trained on, or longer.

        Logits beyond the tokenizer's tokens are left out: models of one family pad them to sizes of their own.
        """
        vocab = loaded.vocab
        if loaded.tokenizer is not None:  # whose numbers may have holes
            vocab = min(vocab, max(loaded.tokenizer.get_vocab().values()) + 1)
        return cls(loaded.model, vocab, loaded.tokenizer, limit_of(loaded) if limited else None)

    def open(self, rows: int) -> Reading:
        """Begin with so many empty texts."""
        return Reading(self, rows)


class Reading:
    """Texts that one model reads on, with their cache."""

    def __init__(self, decoder: Decoder, rows: int) -> None:
        self.decoder = decoder
        self.cache = KVCache(rows)
        self.device = next(decoder.model.parameters()).device

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text so far."""
        return list(self.cache.lengths)

    @torch.inference_mode()
    def append(self, new: Sequence[Sequence[int]]) -> list[Tensor]:
        """Read new tokens of each text, none or more, and return the logits after each of them, (tokens, V) a text.

        Raises:
            ConfigError: tokens for another number of texts, or more than a text may have.
            DataError: a token that the model does not know.
            LabError: logits that are not finite.
        """
        before, counts = self.lengths, [len(tokens) for tokens in new]
        if len(new) != len(before):
            raise ConfigError(f"there are {len(before)} texts, and tokens for {len(new)}; give some for each")
        limit = self.decoder.limit
        after = [length + count for length, count in zip(before, counts, strict=True)]
        if limit is not None and max(after, default=0) > limit:
            raise ConfigError(
                f"a text of {max(after)} tokens is longer than the {limit} that the model was trained on; make it "
                "shorter, or open a decoder with limit=None"
            )
        tokens_BT = torch.zeros(len(new), max(counts, default=0), dtype=torch.long)
        for row, tokens in enumerate(new):
            tokens_BT[row, : len(tokens)] = torch.tensor(list(tokens), dtype=torch.long)
        if not tokens_BT.numel():
            return [torch.empty(0, self.decoder.vocab, device=self.device) for _ in new]
        if tokens_BT.min() < 0 or tokens_BT.max() >= self.decoder.vocab:
            wrong = tokens_BT[(tokens_BT < 0) | (tokens_BT >= self.decoder.vocab)][0]
            raise DataError(f"the model knows {self.decoder.vocab:,} tokens, and no number {wrong}")
        logits_BTV = self.decoder.model(tokens_BT.to(self.device), self.cache)
        self.cache.truncate(after)
        found = [logits_BTV[row, :count, : self.decoder.vocab] for row, count in enumerate(counts)]
        for row, logits_TV in enumerate(found):
            if not torch.isfinite(logits_TV).all():
                self.cache.truncate(before)
                self.cache.wipe()
                place = self._diverges(row, tokens_BT[row, : counts[row]])
                raise LabError(
                    f"logits after token {place} of text {row + 1} are not finite; try the model without a scheme, or "
                    "with more bits for what it rounds, and see whether its weights are finite"
                )
        return [logits if logits.dtype == torch.float64 else logits.float() for logits in found]

    def _diverges(self, row: int, tokens_T: Tensor) -> int:
        """After how many tokens a text's logits are not finite: in one pass they spoil those before them too."""
        cache = copy.deepcopy(self.cache)
        cache.keep([row])
        for token in tokens_T:
            logits_11V = self.decoder.model(token.view(1, 1).to(self.device), cache)
            if not torch.isfinite(logits_11V).all():
                break
        return cache.lengths[0]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget the tokens of each text behind a length."""
        self.cache.truncate(lengths)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the texts, in this order."""
        self.cache.keep(rows)


def limit_of(loaded: Loaded) -> int:
    """Tokens that a model was trained to read at once, as its folder says.

    Ours: the windows of training. Of Hugging Face: `max_position_embeddings`, or its sliding window, which our cache
    does not slide.
    """
    if not isinstance(loaded.model, Pretrained):
        return loaded.seq_len
    config = loaded.model.model.config
    said = (getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window"))
    return min([value for value in said if isinstance(value, int)] or [loaded.seq_len])


def lowest_limit(*sources: Source) -> int | None:
    """Tokens that a text of all of some sources may have; None for any number."""
    return min((source.limit for source in sources if source.limit is not None), default=None)


def read(session: Session, texts: Sequence[Sequence[int]]) -> Iterator[list[Tensor]]:
    """Read texts on, some tokens of each at once, and yield the logits after them, (tokens, V) a text."""
    for start in range(0, max(map(len, texts)), AT_ONCE):
        yield session.append([text[start : start + AT_ONCE] for text in texts])


def same_tokens(*sources: Source) -> None:
    """Check that logits of several sources are of the same tokens.

    Raises:
        ConfigError: they are not.
    """
    if len({(source.vocab, source.tokenizer_sha256) for source in sources}) > 1:
        sizes = ", ".join(f"{source.vocab:,}" for source in sources)
        raise ConfigError(
            f"the models have tokens of their own ({sizes} in number); use models of one tokenizer, whose logits "
            "can be compared"
        )
