"""The laws that can be fitted by name: bases, precision terms and gaps put together."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigError
from . import floating as _floating  # noqa: F401  (fills the register of precision forms)
from . import gap as _gap  # noqa: F401  (fills the register of gap forms)
from . import precision as _precision  # noqa: F401  (fills the register of precision forms)
from . import trajectory as _trajectory
from .base import (
    broken,
    broken_size,
    chinchilla,
    data_constrained,
    kaplan,
    nothing,
    outer,
    overtraining,
    saturating,
)
from .downstream import error_line, gadre_error, task_accuracy
from .drafting import rejection, rejection_step
from .law import Law
from .spec import BASE
from .terms import GAP, PRECISION, Source, look_up

_KUMAR = "Kumar et al. 2024, Scaling Laws for Precision"


def _every_part(form: str) -> Law:
    return chinchilla.with_precision(w=form, a=form, kv=form)


kumar = _every_part("kumar").with_gap("kumar").tie(beta="alpha")
kumar = kumar.named("kumar", Source(_KUMAR, "2411.04330", "eq. 4 with the offsets of appendix K, and eq. 2"))
kumar_untied = _every_part("kumar").with_gap("kumar")
kumar_untied = kumar_untied.named("kumar-untied", Source(_KUMAR, "2411.04330", "with alpha and beta free"))
kumar_unified = _every_part("kumar").with_gap("kumar-unified").tie(beta="alpha")
kumar_unified = kumar_unified.named("kumar-unified", Source(_KUMAR, "2411.04330", "eq. 9"))
kumar_unified_n = _every_part("kumar").with_gap("kumar-unified-n").tie(beta="alpha")
kumar_unified_n = kumar_unified_n.named("kumar-unified-n", Source(_KUMAR, "2411.04330", "figure 21, with N"))

_TABLE_1 = (
    "effective-data",
    "effective-both",
    "effective-both-untied",
    "additive-power",
    "multiplicative-power",
)
_rejected = [
    _every_part(form).tie(beta="alpha").named(form, Source(_KUMAR, "2411.04330", where))
    for form, where in (
        ("kumar-without-offset", "eq. 4 as printed"),
        *((form, "table 1") for form in _TABLE_1),
    )
]
efficiency = _every_part("efficiency").named(
    "efficiency", Source("Frantar et al. 2025; Panferov et al. 2025 (QuEST)", "2502.16440; 2502.05003")
)
capacity = _every_part("capacity").named(
    "capacity",
    Source(
        "Panferov et al. 2025, Unified Scaling Laws for Compressed Representations", "2506.01863", "table 4"
    ),
)
capacity_sparse = chinchilla.with_precision(w="capacity-sparse", a="capacity").named(
    "capacity-sparse",
    Source(
        "Panferov et al. 2025, Unified Scaling Laws for Compressed Representations",
        "2506.01863",
        "table 4, with sparse weights and the prefactor",
    ),
)
quartet = outer.with_precision(w="efficiency", grad="efficiency").named(
    "quartet", Source("Castro et al. 2025 (Quartet)", "2505.14669", "eq. 1")
)
qid = chinchilla.with_gap("qid").named("qid", Source("Ouyang et al. 2024", "2411.17691"))
qid_per_format = chinchilla.with_gap("per-format").named(
    "qid-per-format", Source("Ouyang et al. 2024, one law a format", "2411.17691")
)
_gaps_alone = [
    nothing.with_gap(form).named(f"gap-{form}", source)
    for form, source in (
        ("kumar", Source(_KUMAR, "2411.04330", "eq. 2, of the gap alone")),
        ("qid", Source("Ouyang et al. 2024, of the gap alone", "2411.17691")),
        ("per-format", Source("Ouyang et al. 2024, of the gap alone, one law a format", "2411.17691")),
    )
]
floating_point = chinchilla.with_precision(w="floating-point").named(
    "floating-point",
    Source("Sun et al. 2025, Scaling Laws for Floating-Point Quantization Training", "2501.02423"),
)
additive_granular = chinchilla.with_precision(w="additive-granular", a="additive-granular").named(
    "additive-granular",
    Source(
        "Chen et al. 2025, Scaling Law for Quantization-Aware Training", "2505.14302", "eq. 4 and 5, by part"
    ),
)

#: By name, in the order they are listed. The last five predict another target than the loss.
LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        chinchilla,
        outer,
        overtraining,
        kaplan,
        saturating,
        data_constrained,
        kumar,
        kumar_untied,
        kumar_unified,
        kumar_unified_n,
        *_rejected,
        efficiency,
        capacity,
        capacity_sparse,
        quartet,
        qid,
        qid_per_format,
        *_gaps_alone,
        floating_point,
        additive_granular,
        _trajectory.law,
        broken,
        broken_size,
        gadre_error,
        error_line,
        task_accuracy,
        rejection,
        rejection_step,
    )
}


def compatible(base: Law | str, precision: Mapping[str, str] | None = None, gap: str | None = None) -> str:
    """Say why a base, precision forms and a gap do not go together; an empty string means that they do.

    Args:
        base: a base law, or its name.
        precision: the form for each part, like `{"w": "kumar"}`.
        gap: the form of the gap.

    Returns:
        The reason, or nothing.

    Raises:
        ConfigError: a base or form that does not exist.

    >>> compatible("chinchilla", {"w": "kumar"}, "qid")
    ''
    >>> compatible("broken", {"w": "kumar"})
    "the form 'kumar' does not go with broken: it needs N, and that law does not read params"
    """
    bases = {name: law for name, law in BASE.items() if law.target == "loss" or name == base}
    law: Law = look_up(bases, base, "base law") if isinstance(base, str) else base
    for form in (precision or {}).values():
        look_up(PRECISION, form, "precision form")
    if gap is not None:
        look_up(GAP, gap, "gap form")
    try:
        law = law.with_precision(**precision) if precision else law
        if gap is not None:
            law.with_gap(gap)
    except ConfigError as error:
        return str(error)
    return ""
