"""What follows from a size, tokens and formats: epochs, errors, FLOPs, hours, money, bytes, tokens a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .limits import Array
from .optimum import Best, Search
from .question import Question

#: A further quantity of optima (S,).
Derived = Callable[[Best], Array]


def derived(search: Search, asked: Question) -> dict[str, Derived]:
    """The quantities that a question calls for beyond size, tokens, bits and loss, each as a function of optima."""
    limits, machine = search.limits, asked.machine

    def cost(name: str) -> Derived:
        place = ("train", "serve", "bpw", "kv_bits").index(name)
        return lambda best: search.costs(best.choice, best.bits[:, None])[place][:, 0]

    def training(best: Best) -> Array:
        return 6 * best.params * best.tokens * cost("train")(best)

    def serving(best: Best) -> Array:
        return 2 * best.params * limits.served * cost("serve")(best)

    def held(best: Best) -> Array:
        return limits.memory(best.params, cost("bpw")(best), cost("kv_bits")(best))

    def error(best: Best) -> Array:
        curve, drawn = asked.errors, len(best.loss) - 1
        assert curve is not None
        theta = curve.law.vector(curve.values)[None]
        if drawn:  # of two fits that know nothing of each other; one without draws has no doubt to add
            theirs = curve.draws if curve.df > 0 else theta
            theta = np.concatenate([theta, theirs[np.arange(drawn) % len(theirs)]])
        return curve.law.compiled.guarded("total", theta, {"loss": best.loss[:, None]})[:, 0]

    served = asked.bytes or asked.context or asked.speed
    found: dict[str, Derived] = {"tokens_per_param": lambda best: best.tokens / best.params}
    if asked.errors is not None:
        found["error"] = error
    if asked.max_gap is not None:
        most = asked.max_gap
        found["max_gap_tokens"] = lambda best: search.tokens_of_gap(
            search.source.theta[: len(best.loss)], best, most
        )
    if limits.unique is not None:
        found["epochs"] = lambda best: np.maximum(1.0, best.tokens / (limits.unique or 1.0))
    if asked.loss is not None or asked.served or machine is not None:
        found["training_flops"] = training
    if asked.served:
        found["serving_flops"] = serving
    if served:
        found["served_bytes"] = held
    if machine is not None:
        rate = machine.flops_per_second
        found["hours"] = lambda best: (training(best) + serving(best)) / rate / 3600
        found["money"] = lambda best: found["hours"](best) * machine.dollars(3600)
        reads = machine.hardware.bandwidth
        if reads is not None and served:
            step = asked.sequences
            found["tokens_per_second"] = lambda best: (
                step
                / np.maximum(
                    held(best) / (reads * machine.devices),
                    2 * best.params * step * cost("serve")(best) / rate,
                )
            )
    return found
