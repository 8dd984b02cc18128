"""The hardware of a question: from FLOPs to hours and money, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ConfigError
from ..formats import Format
from .choice import Choice
from .cost import Achieved
from .hardware import Hardware


@dataclass(frozen=True)
class Machine:
    """Devices at work, counted in FLOPs of 16 bits a second.

    Attributes:
        hardware: the profile.
        devices: how many work at once; what they lose by it belongs in `achieved`.
        achieved: share of the peak that real runs reach; None is the peak itself, and then times are lower bounds.
        speedups: over 16 bits, by unit, that were given in place of the hardware's rates.
    """

    hardware: Hardware
    devices: float = 1.0
    achieved: float | Achieved | None = None
    speedups: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.devices < 1e9:
            raise ConfigError(f"devices: {self.devices!r} cannot be had; give a number like 8")
        if not 0 < self.share <= 1:
            raise ConfigError(
                f"achieved is a share of the peak, above 0 and at most 1, not {self.share!r}; try 0.4"
            )

    @property
    def share(self) -> float:
        """Of the peak."""
        if isinstance(self.achieved, Achieved):
            return self.achieved.share
        return 1.0 if self.achieved is None else self.achieved

    @property
    def peak(self) -> float:
        """FLOPs of 16 bits a second of all devices at best."""
        return self.hardware.rate("bf16").flops * self.devices

    def has(self, name: str) -> bool:
        """Whether the hardware multiplies a format in units of its own width."""
        try:
            return not self.hardware.rate(name, name).note
        except ConfigError:
            return False

    @property
    def flops_per_second(self) -> float:
        """Of all devices, in 16 bits."""
        return self.peak * self.share

    def pace(self, one: Format, other: Format) -> float:
        """What products of two formats cost, in products of 16 bits."""
        return self.hardware.rate("bf16").flops / self.hardware.rate(one, other).flops

    def dollars(self, seconds: float) -> float:
        """What some time costs; NaN where the price is not known."""
        return self.hardware.dollars(seconds, self.devices)

    def seconds(self, hours: float | None, money: float | None) -> float | None:
        """Time of all devices in some hours, or that some money buys; None where neither is given.

        Raises:
            ConfigError: the price is not known.
        """
        if money is None:
            return None if hours is None else 3600 * hours
        an_hour = self.dollars(3600)
        if math.isnan(an_hour):
            raise ConfigError(
                f"what {self.hardware.name} costs is not known here; give hours instead, or its price in a profile of "
                "your own"
            )
        return money / an_hour * 3600

    def _measured(self, choice: Choice) -> str:
        """What narrow products gained in real work, where that is published, beside the peak that is counted."""
        unit = self.hardware.rate(choice.scheme.w.format, choice.scheme.a.format).units
        told = (m for m in self.hardware.measured if m.over == "bf16" and m.what == "training")
        found = [m.factor for m in told if m.formats == unit]
        if not found:
            return ""
        counted = 1 / self.pace(choice.scheme.w.format, choice.scheme.a.format)
        return (
            f"{unit} is counted at its peak, {counted:.3g} times 16 bits; the most that published training gained is "
            f"{' or '.join(f'{factor:g}' for factor in sorted(set(found)))} times: give speedups"
        )

    def notes(self, choice: Choice) -> list[str]:
        """What times and prices rest on."""
        name, scheme = self.hardware.name, choice.scheme
        notes = [self.hardware.rate(scheme.w.format, scheme.a.format).note]
        if self.achieved is None:
            notes.append(
                f"hours are at the peak rates of {name}, which no run reaches: a lower bound; give achieved"
            )
        else:
            share = (
                str(self.achieved) if isinstance(self.achieved, Achieved) else f"{self.share:.0%} of the peak"
            )
            notes.append(f"hours are of {name} at {share}")
        if self.speedups:
            given = ", ".join(f"{unit} {factor:g}" for unit, factor in self.speedups.items())
            notes.append(
                f"speed-ups over 16 bits as given: {given}; other narrow units are taken not to be there"
            )
        elif told := self._measured(choice):
            notes.append(told)
        if self.hardware.price is None:
            notes.append(f"what {name} costs is not known here")
        else:
            an_hour = f"{self.hardware.price:g} USD an hour of {name}"
            notes.append(f"{an_hour}: {self.hardware.price_source} ({self.hardware.price_date})")
        return [note for note in notes if note]
