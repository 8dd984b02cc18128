"""Constants as published, with their source and the regime they were fitted in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ConfigError, nearest
from . import trajectory
from .base import chinchilla, data_constrained, kaplan, outer, overtraining
from .catalogue import LAWS, floating_point, kumar
from .downstream import gadre_error
from .law import Law
from .terms import Source


@dataclass(frozen=True)
class Published:
    """A law with somebody's constants.

    Attributes:
        name: what `--law` takes.
        law: the law.
        values: a value for each of its parameters.
        source: where they stand.
        regime: what they were fitted on; anything else is extrapolation.
        fitted: column to (lowest, highest) value in that regime, for warning of extrapolation; so for tokens_per_param.
    """

    name: str
    law: Law
    values: Mapping[str, float]
    source: Source
    regime: str
    fitted: Mapping[str, tuple[float, float]] = field(default_factory=dict)


CORPORA = {"c4": "C4", "redpajama": "RedPajama", "refinedweb": "RefinedWeb"}


def _gadre(corpus: str, E: float, p: float, q: float, eta: float) -> Published:
    """Constants refitted to the published runs; they give every printed error of the paper."""
    return Published(
        name=f"gadre-2024-{corpus}",
        law=overtraining,
        values={"E": E, "p": p, "q": q, "eta": eta},
        source=Source("Gadre et al. 2024", "2403.08540", "refitted to their public runs"),
        regime=f"11M to 411M parameters (embeddings included), 20 to 320 tokens a parameter, {CORPORA[corpus]}",
        fitted={"params": (1.06e7, 4.12e8), "tokens": (2.1e8, 8.3e9), "tokens_per_param": (20, 320)},
    )


def _gadre_error(corpus: str, epsilon: float, k: float, gamma: float) -> Published:
    """Constants refitted to the published runs; they give every printed error of the paper."""
    return Published(
        name=f"gadre-2024-{corpus}-error",
        law=gadre_error,
        values={"epsilon": epsilon, "k": k, "gamma": gamma},
        source=Source("Gadre et al. 2024", "2403.08540", "refitted to their public runs"),
        regime=f"11M to 1.4B parameters trained on {CORPORA[corpus]}; loss on C4, mean top-1 error over 17 tasks",
        fitted={"loss": (2.65, 5.4)},
    )


def _chen(
    setting: str, part: str, what: str, k: float, gamma_N: float, gamma_D: float, gamma_G: float
) -> Published:
    label, title = "[int4]", "Chen et al. 2025, Scaling Law for Quantization-Aware Training"
    return Published(
        name=f"chen-2025-{setting}",
        law=chinchilla.with_precision(**{part: "additive-granular"}).for_labels({f"{part}_format": ("int4",)}),
        values={
            "E": 1.9279,
            "A": 237.7042,
            "B": 596.2490,
            "alpha": 0.3022,
            "beta": 0.3022,
            f"k_{part}{label}": k,
            f"gamma_N_{part}{label}": gamma_N,
            f"gamma_D_{part}{label}": gamma_D,
            f"gamma_G_{part}{label}": gamma_G,
        },
        source=Source(title, "2505.14302", f"table 1, {what}"),
        regime="74M to 595M parameters, 10B to 100B tokens of OLMo2-Mix, int4 with 32 to 256 elements or a channel "
        "to a scale, quantised from the start",
        fitted={"params": (74e6, 595e6), "tokens": (10e9, 100e9), f"{part}_group": (32, 2048)},
    )  # fmt: skip


def _quest(
    ending: str, what: str, where: str, efficiencies: Mapping[str, float], regime: str = ""
) -> Published:
    return Published(
        name=f"quest-2025{ending}",
        law=chinchilla.with_precision(w="efficiency").for_labels({"w_format": tuple(efficiencies)}),
        values={
            **{"E": 0.00142, "A": 8.134, "B": 86.41, "alpha": 0.06273, "beta": 0.2413},
            **{f"eff_w[{label}]": value for label, value in efficiencies.items()},
        },
        source=Source("Panferov et al. 2025 (QuEST)", "2502.05003", where),
        regime=f"30M to 800M non-embedding parameters, about 100 tokens a parameter, C4; {what}; E is not identified"
        f"{regime}",
        fitted={"params": (30e6, 800e6), "tokens": (3e9, 8e10), "tokens_per_param": (100, 100)},
    )


_QUARTET = {"E": 1.35, "A": 1.52e5, "B": 5.25e5, "alpha": 0.589, "beta": 0.544, "g": 0.274}
_QUARTET_RUNS = "30M to 200M non-embedding parameters, 25 to 800 tokens a parameter, C4"


def _quartet(ending: str, what: str, forward: float, backward: float) -> Published:
    labels = {"w_format": ("mxfp4",), "grad_format": ("mxfp4",)}
    return Published(
        name=f"quartet-2025-mxfp4{ending}",
        law=outer.with_precision(w="efficiency", grad="efficiency").for_labels(labels),
        values={**_QUARTET, "eff_w[mxfp4]": forward, "eff_grad[mxfp4]": backward},
        source=Source("Castro et al. 2025 (Quartet)", "2505.14669", "table 6 and its efficiencies"),
        regime=f"{_QUARTET_RUNS}; MXFP4 in the whole forward pass (w_format) and backward pass (grad_format), {what}",
        fitted={"params": (30e6, 200e6), "tokens": (7.5e8, 1.6e11), "tokens_per_param": (25, 800)},
    )


_ALL = (
    Published(
        name="kumar-2024",
        law=kumar,
        values={
            "E": 2.7648,
            "A": 4299.0,
            "B": 18060.0,
            "alpha": 0.4965,
            "gamma_w": 2.6745,
            "n_w": 0.3037,
            "gamma_a": 2.2102,
            "n_a": 1.4072,
            "gamma_kv": 0.9578,
            "n_kv": 2.4185,
            "C_T": 0.0598,
            "gamma_D": 0.5068,
            "gamma_N": 0.3439,
            "gamma_post": 0.5907,
            "b": 1.1277,
        },
        source=Source("Kumar et al. 2024, Scaling Laws for Precision", "2411.04330", "table 2"),
        regime="30M to 220M non-embedding parameters, 1.5B to 26B tokens of Dolma, 3 to 16 bits, cosine",
        fitted={
            "params": (30e6, 220e6),
            "tokens": (1.5e9, 26e9),
            "w_bits": (3, 12),
            "a_bits": (4, 12),
            "kv_bits": (4, 12),
            "post_bits": (3, 8),
            "tokens_per_param": (6.8, 870),
        },
    ),
    Published(
        name="kumar-2024-float",
        law=chinchilla.with_precision(w="kumar").tie(beta="alpha"),
        values={"E": 2.7648, "A": 4299.0, "B": 18060.0, "alpha": 0.4965, "gamma_w": 2.8111, "n_w": 0.1240},
        source=Source("Kumar et al. 2024, Scaling Laws for Precision", "2411.04330", "appendix N, the base of table 2"),
        regime="140 runs with weights, and nothing else, in floating point of 3 to 12 bits, sign included; exponent "
        "and mantissa grow together; the sign of the offset is our reading",
        fitted={"params": (30e6, 220e6), "tokens": (1.5e9, 26e9), "w_bits": (3, 12)},
    ),
    Published(
        name="chinchilla-2022",
        law=chinchilla,
        values={"E": 1.6934, "A": 406.4, "B": 410.7, "alpha": 0.33917, "beta": 0.28491},
        source=Source("Hoffmann et al. 2022", "2203.15556", "approach 3; superseded by chinchilla-2024"),
        regime="the same runs as chinchilla-2024; its fit had stopped early",
        fitted={"params": (57e6, 16e9), "tokens": (8.2e8, 3.18e11), "tokens_per_param": (0.46, 341)},
    ),
    Published(
        name="chinchilla-2024",
        law=chinchilla,
        values={"E": 1.81686, "A": 482.00572, "B": 2085.43420, "alpha": 0.34781, "beta": 0.36585},
        source=Source("Besiroglu et al. 2024, Chinchilla Scaling: A replication attempt", "2404.10102"),
        regime="240 runs of Hoffmann et al., 57M to 16B parameters",
        fitted={"params": (57e6, 16e9), "tokens": (8.2e8, 3.18e11), "tokens_per_param": (0.46, 341)},
    ),
    Published(
        name="kaplan-2020",
        law=kaplan,
        values={"N_c": 6.4e13, "D_c": 1.8e13, "alpha": 0.076, "beta": 0.103},
        source=Source("Kaplan et al. 2020", "2001.08361", "eq. 1.5"),
        regime="768 to 1.5B non-embedding parameters, 22M to 23B tokens of WebText2, repeated until early stopping",
        fitted={"params": (768, 1.5e9), "tokens": (2.2e7, 2.3e10)},
    ),
    Published(
        name="muennighoff-2023",
        law=data_constrained,
        values={
            "E": 1.869144,
            "A": 520.825,
            "B": 1487.716,
            "alpha": 0.3526596,
            "R_D": 15.387756,
            "R_N": 5.309743,
            "G_c": 0.051,
        },
        source=Source("Muennighoff et al. 2023, Scaling Data-Constrained Language Models", "2305.16264"),
        regime="182 runs, 7M to 9B parameters, up to many epochs",
        fitted={"params": (7e6, 9e9), "tokens": (1e8, 9e11)},
    ),
    _gadre("c4", 1.508, 141.3, 189.5, 0.1212),
    _gadre("redpajama", 1.837, 212.2, 366.7, 0.1364),
    _gadre("refinedweb", 1.734, 157.1, 246.2, 0.1272),
    Published(
        name="quartet-2025",
        law=outer,
        values=_QUARTET,
        source=Source("Castro et al. 2025 (Quartet)", "2505.14669", "table 6, the base at 16 bits"),
        regime=_QUARTET_RUNS,
        fitted={"params": (30e6, 200e6), "tokens": (7.5e8, 1.6e11), "tokens_per_param": (25, 800)},
    ),
    _quartet("", "by Quartet, as measured end to end at 30M", 0.65, 0.95),
    _quartet("-rtn", "rounding to nearest, absmax scales, each pass measured by itself", 0.59, 0.93),
    _quartet("-sr", "stochastic rounding, absmax scales, each pass measured by itself", 0.42, 0.88),
    _quartet("-quest", "by QuEST's quantiser, each pass measured by itself", 0.64, 0.83),
    _quest(
        "", "weights and activations in one format", "authors' notebook; weights and activations",
        {"binary": 0.0205, "int2": 0.1519, "int3": 0.4331, "int4": 0.6918, "int8": 1.0162, "e2m1": 0.6296},
    ),
    _quest(
        "-weights", "weights only", "authors' notebook; weights only",
        {"binary": 0.1384, "int2": 0.4137, "int3": 0.6531, "int4": 0.8404},
    ),
    _quest(
        "-no-hadamard", "weights and activations in one format, without the Hadamard transform",
        "authors' notebook; without Hadamard",
        {"binary": 0.0156, "int2": 0.0784, "int3": 0.3221, "int4": 0.6033, "int8": 0.9376},
    ),
    _quest(
        "-lsq", "weights and activations in one format, trained by LSQ instead of QuEST",
        "table 2 for LSQ; the base from the authors' notebook",
        {"int2": 0.12, "int3": 0.32, "int4": 0.56, "int8": 0.87},
    ),
    Published(
        name="qid-2024",
        law=kaplan.with_gap("qid"),
        values={
            "N_c": 4.74e19,
            "D_c": 7.63e10,
            "alpha": 0.045,
            "beta": 0.399,
            "k_post": 0.017,
            "gamma_D": 0.5251,
            "gamma_N": 0.2261,
            "kappa_post": 5.4967,
        },
        source=Source("Ouyang et al. 2024", "2411.17691", "pooled over 2, 3 and 4 bits"),
        regime="Pythia 160M to 12B, checkpoints of 1B to 206B tokens, GPTQ",
        fitted={"params": (160e6, 12e9), "tokens": (1e9, 2.06e11), "post_bits": (2, 4)},
    ),
    Published(
        name="qid-2024-per-format",
        law=kaplan.with_gap("per-format").for_labels({"post_format": ("int2", "int3", "int4")}),
        values={
            "N_c": 4.74e19,
            "D_c": 7.63e10,
            "alpha": 0.045,
            "beta": 0.399,
            "k_post[int2]": 4.12e-4,
            "k_post[int3]": 1.170e-5,
            "k_post[int4]": 6.132e-6,
            "gamma_D[int2]": 0.5195,
            "gamma_D[int3]": 0.6728,
            "gamma_D[int4]": 0.6551,
            "gamma_N[int2]": 0.2239,
            "gamma_N[int3]": 0.3547,
            "gamma_N[int4]": 0.3835,
        },
        source=Source(
            "Ouyang et al. 2024", "2411.17691", "recovered from its table of tokens to a gap of 0.2"
        ),
        regime="Pythia 160M to 12B, checkpoints of 1B to 206B tokens, GPTQ to 2, 3 and 4 bits, one law a format",
        fitted={"params": (160e6, 12e9), "tokens": (1e9, 2.06e11)},
    ),
    Published(
        name="sun-2025",
        law=floating_point,
        values={
            "E": 1.9061,
            "A": 69.2343,
            "B": 68973.0621,
            "alpha": 0.2368,
            "beta": 0.5162,
            "k_w": 1 / 11334.5197,
            "delta_w": 3.1926,
            "nu_w": 2.9543,
        },
        source=Source(
            "Sun et al. 2025, Scaling Laws for Floating-Point Quantization Training",
            "2501.02423",
            "table 2, as quoted by a secondary source",
        ),
        regime="41M to 679M non-embedding parameters, 10B to 105B tokens, 0 to 6 bits of exponent, 1 to 7 of "
        "mantissa, 32 to 512 elements to a scale; inputs of all matrix products in one format",
        fitted={
            "params": (41e6, 679e6),
            "tokens": (10.5e9, 105e9),
            "w_exponent": (0, 6),
            "w_mantissa": (1, 7),
            "w_group": (32, 512),
        },
    ),
    _chen("w4a4", "w", "W4A4: weights and activations", 0.1582, 0.2186, 0.0745, 0.7779),
    _chen("w4a16", "w", "W4A16", 0.2522, 0.3589, 0.1610, 0.3533),
    _chen("w16a4", "a", "W16A4", 0.1004, 0.1816, 0.0331, 0.9812),
    _chen("w4a4-fc2-8", "w", "W4A4, but 8 bits into the last layer of the MLP", 0.3519, 0.2637, 0.0964, 0.3407),
    _chen("w16a4-fc2-8", "a", "W16A4, but 8 bits into the last layer of the MLP", 0.1273, 0.2347, 0.0827, 0.4491),
    Published(
        name="kaplan-2020-trajectory",
        law=trajectory.law,
        values={
            "N_c": 6.5e13,
            "alpha_N": 0.077,
            "S_c": 2.1e3,
            "alpha_S": 0.76,
            "B_star": 2.0e8,
            "alpha_B": 0.21,
        },
        source=Source("Kaplan et al. 2020", "2001.08361", "as quoted by secondary sources"),
        regime="non-embedding parameters, WebText2, after warm-up, data not repeated",
    ),
    _gadre_error("c4", 0.8497, 2.0789, 0.7561),
    _gadre_error("redpajama", 0.8570, 2.2065, 0.7146),
    _gadre_error("refinedweb", 0.8653, 2.2148, 0.7070),
)  # fmt: skip
PUBLISHED: dict[str, Published] = {p.name: p for p in _ALL}


def published(name: str) -> Published:
    """Return published constants by name, in small or capital letters.

    Raises:
        ConfigError: no such name.

    >>> published("kumar-2024").values["gamma_w"]
    2.6745
    """
    folded = name.lower() if isinstance(name, str) else name
    if folded in PUBLISHED:
        return PUBLISHED[folded]
    if folded in LAWS:
        own = [name for name, found in PUBLISHED.items() if found.law.name == folded]
        near = own or [name for name in PUBLISHED if name.startswith(f"{folded}-")]
        which = f"constants of it: {', '.join(near)}" if near else "`bitlaw laws list` lists constants"
        raise ConfigError(
            f"{folded!r} is a law without constants; fit it to runs, or name constants; {which}"
        )
    raise ConfigError(
        f"there are no published constants {name!r}; {nearest(str(folded), [*PUBLISHED, *LAWS])}"
    )
