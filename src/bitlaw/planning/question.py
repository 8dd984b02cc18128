"""A question to the planner, read and checked: quantities as numbers, hardware as a machine, and all of it in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ..errors import ConfigError
from ..fitting import Fit
from ..runs import read_runs
from ..units import format_quantity, parse_quantity
from .choice import Choice, Formats, Pace, by_bits
from .cost import Achieved, achieved_from
from .hardware import hardware
from .limits import Limits
from .machine import Machine
from .serve import Cache

Quantity: TypeAlias = str | float | None
LEAST_BITS, MOST_BITS = 2.0, 64.0  # that max_bits may be
#: Less has lost its unit.
LEAST = {
    "params": 100,
    "tokens": 100,
    "memory": 1000,
    "max_params": 100,
    "max_tokens": 100,
    "unique_tokens": 100,
    "served": 100,
}
#: What arguments are where nothing was said, if not None.
UNSAID = {"sequences": 1.0, "devices": 1.0, "max_bits": 16.0, "interval": 0.9, "tolerance": 0.01}


@dataclass(frozen=True)
class Question:
    """What `plan` was asked; the names are those of its arguments, None where it was not said."""

    flops: float | None
    seconds: float | None
    loss: float | None
    params: float | None
    tokens: float | None
    bits: Formats | None
    quantize_to: Formats | None
    max_params: float | None
    max_tokens: float | None
    unique_tokens: float | None
    batch_tokens: float | None
    bytes: float | None
    token_flops: float | None
    speed: float | None
    served: float
    context: float | None
    sequences: float
    cache: Cache | None
    kv: str | int | None
    machine: Machine | None
    throughput: float | None
    max_gap: float | None
    measured_gap: float | None
    within: float | None
    learning_rate: float | None
    momentum: float | None
    batch: int | None
    steps: int
    errors: Fit | None
    max_bits: float
    interval: float
    tolerance: float
    said: tuple[str, ...]

    @classmethod
    def read(cls, **asked: Any) -> Question:
        """Read the arguments of `plan`.

        Raises:
            ConfigError: what cannot be read, or contradicts itself.
        """

        def quantity(name: str, unit: str) -> float | None:
            try:
                value = None if asked[name] is None else parse_quantity(asked[name], unit)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error
            if value is not None and value < LEAST.get(name, 0):
                hint = {"params": "8B", "tokens": "20B", "bytes": "16 GB"}[unit]
                raise ConfigError(
                    f"{value:g} {unit} are too few for a model; add the unit to {name}, like {hint!r}"
                )
            return value

        def positive(name: str) -> float | None:
            value = asked[name]
            if value is None:
                return None
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e60:
                raise ConfigError(f"{name} must be a positive number, not {value!r}")
            return float(value)

        tolerance, max_bits = positive("tolerance"), positive("max_bits")
        if tolerance is None or tolerance >= 1:
            raise ConfigError(f"tolerance must lie between 0 and 1, not {asked['tolerance']}; try 0.01")
        if max_bits is None or not LEAST_BITS <= max_bits <= MOST_BITS:
            raise ConfigError(
                f"max_bits must lie between {LEAST_BITS:g} and {MOST_BITS:g}, not {asked['max_bits']}; try 16"
            )
        machine = _machine(asked, positive("devices") or 1.0)
        flops, hours, money = quantity("budget", "flops"), positive("hours"), positive("money")
        if sum(x is not None for x in (flops, hours, money)) > 1:
            raise ConfigError("budget, hours and money are three ways to say one thing; give one of them")
        seconds = None if machine is None else machine.seconds(hours, money)
        return cls(
            flops=flops if machine is None or seconds is None else seconds * machine.flops_per_second,
            seconds=seconds,
            loss=positive("loss"),
            params=quantity("params", "params"),
            tokens=quantity("tokens", "tokens"),
            bits=asked["bits"],
            quantize_to=asked["quantize_to"],
            max_params=quantity("max_params", "params"),
            max_tokens=quantity("max_tokens", "tokens"),
            unique_tokens=quantity("unique_tokens", "tokens"),
            batch_tokens=quantity("batch_tokens", "tokens"),
            bytes=quantity("memory", "bytes"),
            token_flops=quantity("token_flops", "flops"),
            speed=positive("speed"),
            served=quantity("served", "tokens") or 0.0,
            context=quantity("context", "tokens"),
            sequences=positive("sequences") or 1.0,
            cache=_cache(asked["cache"]),
            kv=asked["kv"],
            machine=machine,
            throughput=quantity("throughput", "tokens"),
            max_gap=positive("max_gap"),
            measured_gap=_number(asked["measured_gap"], "measured_gap", ", in nats per token"),
            within=positive("within"),
            learning_rate=positive("learning_rate"),
            momentum=_number(asked["momentum"], "momentum"),
            batch=_whole("batch", asked["batch"]),
            steps=_whole("steps", asked["steps"]) or 1000,
            errors=_errors(asked["errors"]),
            max_bits=max_bits,
            interval=asked["interval"],
            tolerance=tolerance,
            said=tuple(name for name, value in asked.items() if _said(name, value)),
        ).possible()

    def possible(self) -> Question:
        """The same, where what is given lies within its own limits.

        Raises:
            ConfigError: it does not.
        """
        for name, given, most in (
            ("params", self.params, self.max_params),
            ("tokens", self.tokens, self.max_tokens),
        ):
            if given is not None and most is not None and given > most:
                raise ConfigError(
                    f"{name} is {format_quantity(given)}, but max_{name} {format_quantity(most)}; drop one of them"
                )
        return self

    def only(self, what: str, reads: Collection[str]) -> None:
        """Refuse what plays no part in a question, which may have been meant otherwise.

        Raises:
            ConfigError: such an argument was given.
        """
        for name in self.said:
            if name not in reads:
                raise ConfigError(f"{name} plays no part in {what}; drop it")

    def timed(self, choices: tuple[Choice, ...]) -> Question:
        """The same with the share of the peak that a measured throughput means.

        Raises:
            ConfigError: a throughput without hardware, size or one choice of formats, or beyond the peak.
        """
        if self.throughput is None:
            return self
        if self.machine is None or self.params is None or len(choices) > 1:
            raise ConfigError(
                "throughput was measured at one size and choice of formats; give params, and bits"
            )
        if self.machine.achieved is not None:
            raise ConfigError("achieved and throughput are two ways to say one thing; give one of them")
        flops = 6 * self.params * choices[0].train * self.throughput
        if flops > self.machine.peak:
            raise ConfigError(
                f"throughput is {flops / self.machine.peak:.3g} times what {self.machine.hardware.name} can do at its "
                "peak; look at tokens a second, params, bits and devices again"
            )
        machine = replace(self.machine, achieved=flops / self.machine.peak)
        spent = self.flops if self.seconds is None else self.seconds * machine.flops_per_second
        return replace(self, machine=machine, flops=spent)

    @property
    def pace(self) -> Pace:
        """What products cost: by bits, or by the rates of hardware."""
        return by_bits if self.machine is None else self.machine.pace

    def model(self, what: str) -> tuple[float, float]:
        """Size and tokens of the model that is asked about.

        Raises:
            ConfigError: one of them is missing.
        """
        if self.params is None or self.tokens is None:
            raise ConfigError(f"{what} of a model; give its params and tokens")
        return self.params, self.tokens

    def limits(self, repeats: bool) -> Limits:
        """What there is to spend.

        Args:
            repeats: whether the law knows what repeated tokens are worth.

        Raises:
            ConfigError: a limit that needs hardware, or a bandwidth that is not known.
        """
        most_tokens = [x for x in (self.max_tokens, None if repeats else self.unique_tokens) if x is not None]
        held, each = [self.bytes] if self.bytes else [], [self.token_flops] if self.token_flops else []
        if self.speed is not None:
            if self.machine is None or self.machine.hardware.bandwidth is None:
                raise ConfigError(
                    "speed needs hardware whose bandwidth is known; name it, like hardware='h100'"
                )
            read = self.machine.hardware.bandwidth * self.machine.devices
            held.append(self.sequences * read / self.speed)  # what may be read in a step
            each.append(self.machine.flops_per_second / self.speed)
        served = self.speed or self.context or self.bytes
        if self.machine is not None and self.machine.hardware.memory and served:
            held.append(self.machine.hardware.memory * self.machine.devices)
        return Limits(
            flops=self.flops,
            served=self.served,
            params=self.params,
            tokens=self.tokens,
            unique=self.unique_tokens if repeats else None,
            most_params=self.max_params,
            most_tokens=min(most_tokens, default=None),
            bytes=min(held, default=None),
            token_flops=min(each, default=None),
            cached=(self.context or 0.0) * self.sequences,
            cache=self.cache,
        )

    def notes(self, choice: Choice) -> list[str]:
        """What has to be said of the costs."""
        notes = [] if self.machine is None else self.machine.notes(choice)
        if self.bytes is not None or self.speed is not None or self.context is not None:
            notes.append(
                "bytes are of the N parameters that the law counts, with scales; embeddings and head come on top where "
                "it does not count them"
            )
        if (self.bytes is not None or self.speed is not None) and self.context is None:
            notes.append("no keys and values are counted beside the weights; give context for that")
        if self.context and self.cache is None:
            notes.append(
                "keys and values go by the size, N = 12 layers width^2 and width = 128 layers, none of them grouped; "
                "give cache=(layers, heads, their width) where the model's are known"
            )
        read = self.machine is not None and self.machine.hardware.bandwidth is not None
        if read and (self.speed is not None or self.context is not None or self.bytes is not None):
            notes.append("tokens a second are at the memory's full bandwidth, which real servers stay below")
        if self.machine is not None and self.served:
            notes.append(
                "served tokens are counted at the speed of training, as if all were read at once; writing them one by "
                "one takes longer, by far where few sequences are served at once"
            )
        if self.kv is not None:
            notes.append("the cost of quantising keys and values after training is in no law here")
        return notes

    @property
    def words(self) -> str:
        """The question in words."""
        given = []
        for value, unit in ((self.params, "params"), (self.tokens, "tokens")):
            if value is not None:
                given.append(format_quantity(value, unit))
        if self.bits is not None and self.bits not in ("any", "each"):
            given.append(_names(self.bits))
        for value, before, unit in (
            (self.max_params, "at most ", "params"),
            (self.max_tokens, "at most ", "tokens"),
            (self.unique_tokens, "a pool of ", "tokens"),
        ):
            if value is not None:
                given.append(f"{before}{format_quantity(value, unit)}")
        served = []
        if self.bytes is not None:
            served.append(f"within {format_quantity(self.bytes, 'bytes')}")
        if self.context is not None:
            served.append(f"with {format_quantity(self.context * self.sequences, 'tokens')} cached")
        if self.speed is not None:
            served.append(f"at {format_quantity(self.speed, 'tokens')} a second")
        if self.token_flops is not None:
            served.append(f"for {self.token_flops:.3g} FLOPs a token")
        if self.served:
            served.append(f"for {format_quantity(self.served, 'tokens')} in all")
        post = self.quantize_to
        after = (
            ""
            if post is None
            else ", quantised after training" + ("" if post == "any" else f" to {_names(post)}")
        )
        if self.measured_gap is not None:
            return f"Is a gap of {self.measured_gap:g} nats per token normal, given {' and '.join(given)}{after}?"
        if post == "lowest":
            return f"The fewest bits that a model can be quantised to, given {' and '.join(given)}"
        if self.loss is not None:
            text = f"The cheapest way to a loss of {self.loss:g}"
        elif self.flops is not None:
            text = f"The best model for {format_quantity(self.flops, 'flops')}"
        elif self.params is not None and after and not (self.tokens or self.max_tokens or self.unique_tokens):
            text = "How long to train: beyond this many tokens, more training hurts"
        else:
            text = "The best model"
        text += f", given {' and '.join(given)}" if given else ""
        text += after + (f", served {', '.join(served)}" if served else "")
        if self.machine is not None:
            text += f", on {self.machine.devices:g} x {self.machine.hardware.name}"
        return text


def _names(formats: Formats) -> str:
    if isinstance(formats, str | int):
        return f"{formats} bits" if str(formats).isdigit() else str(formats)
    return " or ".join(map(str, formats))


def _whole(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"{name} must be a whole number above zero, not {value!r}")
    return value


def _errors(fit: Any) -> Fit | None:
    if fit is not None and not (isinstance(fit, Fit) and fit.law.target == "error"):
        raise ConfigError(
            f"errors is a fit of errors on tasks by the loss, like downstream(runs).curve, not {fit!r:.60}"
        )
    return fit


def _number(value: Any, name: str, unit: str = "") -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a number{unit}, not {value!r}")
    return float(value)


def _said(name: str, value: Any) -> bool:
    return value is not None and not (isinstance(value, int | float) and value == UNSAID.get(name))


def _cache(numbers: Any) -> Cache | None:
    if numbers is None:
        return None
    named = list(numbers) if isinstance(numbers, Sequence) else []
    if len(named) != 3 or not all(isinstance(n, int) and 0 < n < 1e9 for n in named):
        raise ConfigError(
            f"cache is three whole numbers, layers, heads of keys and values and their width, not {numbers!r}; "
            "try (32, 8, 128)"
        )
    return Cache(*named)


def _machine(asked: Mapping[str, Any], devices: float) -> Machine | None:
    named = asked["hardware"]
    if named is None:
        for name in ("hours", "money", "achieved", "throughput", "speedups", "speed"):
            if asked[name] is not None:
                raise ConfigError(f"{name} is of some hardware; name it, like hardware='h100'")
        if devices != 1:
            raise ConfigError("devices are of some hardware; name it, like hardware='h100'")
        return None
    profile = hardware(named)
    if asked["speedups"] is not None:
        profile = profile.with_speedups(asked["speedups"])
    achieved = asked["achieved"]
    if achieved is not None and (isinstance(achieved, bool) or not isinstance(achieved, int | float)):
        achieved = achieved if isinstance(achieved, Achieved) else achieved_from(read_runs(achieved), profile)
    return Machine(profile, devices, achieved, asked["speedups"] or {})
