"""From what somebody gives to what a law reads: arrays by column, defaults, and nothing left open.

What a law is not told must not silently mean that it costs nothing: a label without constants, or a part
that is quantised to a grid of unknown groups, is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, nearest
from ..formats import NAMED, Native
from ..formats.gaussian import LOSSLESS
from . import checks
from .terms import WHOLE

if TYPE_CHECKING:
    from .law import Law

Array = NDArray[np.float64]
#: Labels of formats that count as unquantised, absent ones among them.
NEUTRAL = (None, "", *(name for name, entry in NAMED.items() if isinstance(entry.format, Native)))
#: What is read of a part's grid, by the end of the column's name: values from here on say unquantised.
_LIMITS = {"bits": WHOLE, "exponent": WHOLE, "mantissa": WHOLE, "capacity": LOSSLESS / 2}
_GRID = ("exponent", "mantissa", "capacity", "group")


def arrange(law: Law, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """Broadcast inputs by column name, with defaults for those left out.

    Args:
        law: the law that reads them.
        inputs: numbers, labels, or arrays of them.

    Returns:
        Arrays of one shape, for each column that the law reads.

    Raises:
        ConfigError: an unknown input, one missing that has no default or without which a quantised part is
            not known, a label without constants, or values that are no numbers or of shapes that do not fit.

    >>> from bitlaw.laws import chinchilla
    >>> {name: float(x) for name, x in arrange(chinchilla, {"params": 1e9, "tokens": 2e10}).items()}
    {'params': 1000000000.0, 'tokens': 20000000000.0}
    """
    columns = {i.column: i for i in law.inputs}
    labelled = {i.column.partition("=")[0] for i in law.inputs if i.label is not None}
    for name in inputs:
        if name not in columns and name not in labelled:
            raise ConfigError(f"{law.name} does not read {name!r}; {nearest(name, {*columns, *labelled})}")
    given: dict[str, Array] = {}
    for name, item in columns.items():
        column = name.partition("=")[0]
        if item.label is not None and column in inputs:
            given[name] = (_labels(law, column, inputs[column]) == item.label).astype(float)
            continue
        value = inputs.get(name, item.default)
        if value is None:
            raise ConfigError(f"{law.name} needs {name}: {item.meaning}")
        given[name] = checks.array(name, value)
        inside = given[name] >= 0 if item.zero else given[name] > 0
        if not inside.all() and item.label is None:
            raise ConfigError(f"{name} must be {'zero or more' if item.zero else 'positive'}")
    try:
        arrays = dict(zip(given, np.broadcast_arrays(*given.values()), strict=True))
    except ValueError as error:
        shapes = ", ".join(f"{name} {np.shape(given[name])}" for name in given if np.shape(given[name]))
        raise ConfigError(
            f"the inputs have shapes that do not fit: {shapes}; give each one value a row"
        ) from error
    told(law, inputs, arrays, ("post",))
    return arrays


def told(
    law: Law, inputs: Mapping[str, ArrayLike], data: Mapping[str, Array], by_bits: Collection[str]
) -> None:
    """Check that of each quantised part everything was given that the law reads of its grid.

    Args:
        law: the law that reads them.
        inputs: what was given.
        data: the same, arranged.
        by_bits: the parts of which bits alone say that they are quantised.

    Raises:
        ConfigError: naming what is missing.
    """
    heads = (name.partition("=")[0].rpartition("_") for name in data)
    for part in dict.fromkeys(part for part, _, kind in heads if kind in (*_LIMITS, "group", "format")):
        marks = [data[name] for name in data if name.startswith(f"{part}_format=")]
        labelled = np.any([mark > 0 for mark in marks], axis=0) if marks else np.False_
        low = labelled
        for kind, limit in _LIMITS.items():
            if f"{part}_{kind}" in data and (kind != "bits" or part in by_bits):
                low = low | (data[f"{part}_{kind}"] < limit)
        if f"{part}_exponent" in data and f"{part}_group" in inputs:
            low = low | (data[f"{part}_group"] > 2)  # which rows without a scale have
        if not np.any(low):
            continue
        for name in (f"{part}_{kind}" for kind in _GRID):
            if name in data and name not in inputs:
                meaning = next(i.meaning for i in law.inputs if i.column == name)
                raise ConfigError(f"{law.name} needs {name} where {part} is quantised: {meaning}")
        known = dict(law.spec.labels).get(f"{part}_format")
        if known and np.any(low & ~labelled):
            raise ConfigError(
                f"{law.name} needs {part}_format where {part} is quantised: {' or '.join(known)}"
            )


def _labels(law: Law, column: str, values: ArrayLike) -> NDArray[np.object_]:
    """Labels as an array, each with constants, or unquantised; a law of one's own says itself what others are."""
    labels = np.asarray(values, dtype=object)
    if column in dict(law.spec.labels):
        known = [i.label for i in law.inputs if i.column.startswith(f"{column}=")]
        for label in labels.flat:
            if label not in known and label not in NEUTRAL:
                raise ConfigError(
                    f"{law.name} has no constants for {column}={label!r}; it has {', '.join(map(str, known))}, "
                    "and bf16 for unquantised"
                )
    return labels


def constants(law: Law, values: Mapping[str, float] | Array) -> Array:
    """Put the values of a law's parameters in order.

    Args:
        law: the law.
        values: by name, or an array in the law's order, of which there may be a stack.

    Returns:
        An array whose last axis is the parameters.

    Raises:
        ConfigError: a value is missing, no finite number, or of an unknown parameter.

    >>> from bitlaw.laws import chinchilla, published
    >>> constants(chinchilla, published("chinchilla-2024").values)[0]
    np.float64(1.81686)
    """
    if isinstance(values, np.ndarray):
        if values.shape[-1:] != (len(law.parameters),):
            raise ConfigError(
                f"{law.name} needs {len(law.parameters)} constants, not an array of shape {values.shape}; "
                f"give them in this order: {', '.join(law.names)}"
            )
        return values
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"the constants of {law.name} are a mapping from name to value, not {ascii(values)[:60]}; its names are "
            f"{', '.join(law.names)}"
        )
    for name in values:
        if name not in law.names:
            raise ConfigError(f"{law.name} has no parameter {name!r}; {nearest(str(name), law.names)}")
    missing = [name for name in law.names if name not in values]
    if missing:
        raise ConfigError(f"{law.name} needs a value for {', '.join(missing)}")
    try:
        vector = np.array([float(values[name]) for name in law.names])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the constants of {law.name} must be numbers ({error}); write 0.5") from error
    if not np.isfinite(vector).all():
        raise ConfigError(f"the constants of {law.name} must be finite")
    return vector
