"""Chains: a law that reads a loss, put after a law that predicts one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from .law import Law


def chain(link: Law, law: Law) -> Law:
    """Put a law that reads a loss after one that predicts it: target(N, D) = link(loss(N, D)).

    The `gap` of the chain is what quantising after training does to the link's target,
    link(loss + gap) - link(loss). It assumes that one link serves both: that the loss says all that the
    target depends on, quantised or not. Check that on rows of your own.

    Args:
        link: a law with the input `loss`, like `gadre-error`.
        law: a law of the loss, in the nats per token that the link was fitted on.

    Returns:
        A law with the inputs and parameters of both, of the link's target.

    Raises:
        ConfigError: the link reads no loss, the law has no expression of one, or both share a parameter.

    >>> from bitlaw.laws import published
    >>> link, law = published("gadre-2024-c4-error"), published("gadre-2024-c4")
    >>> both = chain(link.law, law.law)
    >>> round(float(both.predict({**law.values, **link.values}, params=7e9, tokens=1.4e11)), 3)
    0.478
    """
    for one in (link, law):
        if not hasattr(one, "loss"):
            raise ConfigError(f"a chain is made of laws, not of a {type(one).__name__}; take its law, `.law`")
    shared = sorted({i.symbol.name for i in link.inputs} & set(law.names))
    shared += sorted(set(link.names) & {*law.names, *(i.symbol.name for i in law.inputs)})
    read = [i.symbol for i in link.inputs if i.column == "loss"]
    if not read:
        raise ConfigError(f"{link.name} cannot follow a law: it reads no loss")
    if law.target != "loss" or law.implicit:
        raise ConfigError(
            f"{link.name} cannot follow {law.name}, which has no expression of the loss; "
            f"predict the loss first, and give it to {link.name}"
        )
    if shared:
        raise ConfigError(
            f"{link.name} cannot follow {law.name}: both have {', '.join(shared)}; rename it in a law of your own"
        )
    before, whole = (link.loss.subs(read[0], loss) for loss in (law.loss, law.loss + law.gap))
    return replace(
        law,
        name=f"{link.name} after {law.name}",
        loss=before,
        gap=whole - before,
        inputs=law.inputs + tuple(i for i in link.inputs if i.column not in {"loss", *law.columns}),
        parameters=law.parameters + link.parameters,
        conditions=law.conditions + link.conditions,
        target=link.target,
        spec=replace(law.spec, link=link.spec.base),
    )
