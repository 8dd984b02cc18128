"""The solver against the certified fits of NIST StRD: 27 nonlinear problems, each from two starting points.

Every problem is a `Law` like any other, its parameters unbounded, fitted by least squares from NIST's own starting
points. Six small ones are typed here (public domain); the others are read where the public tables lie.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

from bitlaw.fitting.intervals import covariance, draw, profile
from bitlaw.fitting.objective import Block, Problem, student_quantile
from bitlaw.fitting.solve import Optimum, polish
from bitlaw.laws.law import Law
from bitlaw.laws.spec import LawSpec
from bitlaw.laws.terms import Input, Parameter, Source

DIGITS = 6  # of every parameter and every standard error, from both starts
INEXACT = {
    "Lanczos1"
}  # its residuals are 1e-13, so rounding decides their size, and with it the standard errors

b1, b2, b3, b4, b5, b6, b7, b8, b9 = B = sp.symbols("b1:10")
x, x1, x2 = sp.symbols("x x1 x2")
exp, sin, cos, pi = sp.exp, sp.sin, sp.cos, sp.pi
SATURATING = b1 * (1 - exp(-b2 * x))
CHWIRUT = exp(-b1 * x) / (b2 + b3 * x)
LANCZOS = b1 * exp(-b2 * x) + b3 * exp(-b4 * x) + b5 * exp(-b6 * x)
CUBIC = (b1 + b2 * x + b3 * x**2 + b4 * x**3) / (1 + b5 * x + b6 * x**2 + b7 * x**3)
GAUSS = b1 * exp(-b2 * x) + b3 * exp(-((x - b4) ** 2) / b5**2) + b6 * exp(-((x - b7) ** 2) / b8**2)


def wave(one, other, period):
    return one * cos(2 * pi * x / period) + other * sin(2 * pi * x / period)


MODELS = {
    "Bennett5": b1 * (b2 + x) ** (-1 / b3),
    "BoxBOD": SATURATING,
    "Chwirut1": CHWIRUT,
    "Chwirut2": CHWIRUT,
    "DanWood": b1 * x**b2,
    "ENSO": b1 + wave(b2, b3, 12) + wave(b5, b6, b4) + wave(b8, b9, b7),
    "Eckerle4": b1 / b2 * exp(-(((x - b3) / b2) ** 2) / 2),
    "Gauss1": GAUSS,
    "Gauss2": GAUSS,
    "Gauss3": GAUSS,
    "Hahn1": CUBIC,
    "Kirby2": (b1 + b2 * x + b3 * x**2) / (1 + b4 * x + b5 * x**2),
    "Lanczos1": LANCZOS,
    "Lanczos2": LANCZOS,
    "Lanczos3": LANCZOS,
    "MGH09": b1 * (x**2 + x * b2) / (x**2 + x * b3 + b4),
    "MGH10": b1 * exp(b2 / (x + b3)),
    "MGH17": b1 + b2 * exp(-x * b4) + b3 * exp(-x * b5),
    "Misra1a": SATURATING,
    "Misra1b": b1 * (1 - (1 + b2 * x / 2) ** -2),
    "Misra1c": b1 * (1 - 1 / sp.sqrt(1 + 2 * b2 * x)),
    "Misra1d": b1 * b2 * x / (1 + b2 * x),
    "Nelson": b1 - b2 * x1 * exp(-b3 * x2),  # of log y
    "Rat42": b1 / (1 + exp(b2 - b3 * x)),
    "Rat43": b1 / (1 + exp(b2 - b3 * x)) ** (1 / b4),
    "Roszman1": b1 - b2 * x - sp.atan(b3 / (x - b4)) / pi,
    "Thurber": CUBIC,
}

#: For each parameter: start 1, start 2, certified value, certified standard error; then y and x of each row.
TYPED = {
    "Misra1a": """
        500 250 2.3894212918E+02 2.7070075241E+00
        0.0001 0.0005 5.5015643181E-04 7.2668688436E-06
        ---
        10.07 77.6, 14.73 114.9, 17.94 141.1, 23.93 190.8, 29.61 239.9, 35.18 289, 40.02 332.8
        44.82 378.4, 50.76 434.8, 55.05 477.3, 61.01 536.8, 66.4 593.1, 75.47 689.1, 81.78 760
    """,
    "DanWood": """
        1 0.7 7.6886226176E-01 1.8281973860E-02
        5 4 3.8604055871E+00 5.1726610913E-02
        ---
        2.138 1.309, 3.421 1.471, 3.597 1.49, 4.34 1.565, 4.882 1.611, 5.66 1.68
    """,
    "MGH09": """
        25 0.25 1.9280693458E-01 1.1435312227E-02
        39 0.39 1.9128232873E-01 1.9633220911E-01
        41.5 0.415 1.2305650693E-01 8.0842031232E-02
        39 0.39 1.3606233068E-01 9.0025542308E-02
        ---
        0.1957 4, 0.1947 2, 0.1735 1, 0.16 0.5, 0.0844 0.25, 0.0627 0.167, 0.0456 0.125, 0.0342 0.1
        0.0323 0.0833, 0.0235 0.0714, 0.0246 0.0625
    """,
    "Rat43": """
        100 700 6.9964151270E+02 1.6302297817E+01
        10 5 5.2771253025E+00 2.0828735829E+00
        1 0.75 7.5962938329E-01 1.9566123451E-01
        1 1.3 1.2792483859E+00 6.8761936385E-01
        ---
        16.08 1, 33.83 2, 65.8 3, 97.2 4, 191.55 5, 326.2 6, 386.87 7, 520.53 8, 590.03 9, 651.92 10
        724.93 11, 699.56 12, 689.96 13, 637.56 14, 717.41 15
    """,
    "BoxBOD": """
        1 100 2.1380940889E+02 1.2354515176E+01
        1 0.75 5.4723748542E-01 1.0455993237E-01
        ---
        109 1, 149 2, 149 3, 191 5, 213 7, 224 10
    """,
    "Thurber": """
        1000 1300 1.2881396800E+03 4.6647963344E+00
        1000 1500 1.4910792535E+03 3.9571156086E+01
        400 500 5.8323836877E+02 2.8698696102E+01
        40 75 7.5416644291E+01 5.5675370270E+00
        0.7 1 9.6629502864E-01 3.1333340687E-02
        0.3 0.4 3.9797285797E-01 1.4984928198E-02
        0.03 0.05 4.9727297349E-02 6.5842344623E-03
        ---
        80.574 -3.067, 84.248 -2.981, 87.264 -2.921, 87.195 -2.912, 89.076 -2.84, 89.608 -2.797
        89.868 -2.702, 90.101 -2.699, 92.405 -2.633, 95.854 -2.481, 100.696 -2.363, 101.06 -2.322
        401.672 -1.501, 390.724 -1.46, 567.534 -1.274, 635.316 -1.212, 733.054 -1.1, 759.087 -1.046
        894.206 -0.915, 990.785 -0.714, 1090.109 -0.566, 1080.914 -0.545, 1122.643 -0.4, 1178.351 -0.309
        1260.531 -0.109, 1273.514 -0.103, 1288.339 0.01, 1327.543 0.119, 1353.863 0.377, 1414.509 0.79
        1425.208 0.963, 1421.384 1.006, 1442.962 1.115, 1464.35 1.572, 1468.705 1.841, 1447.894 2.047
        1457.628 2.2
    """,
}


@dataclass(frozen=True)
class Certified:
    """A problem as NIST states it: `table` has start 1, start 2, value and standard error of each parameter (p, 4)."""

    table: np.ndarray
    y: np.ndarray
    x: np.ndarray


def typed(name):
    table, rows = TYPED[name].split("---")
    y, inputs = np.array([row.split() for row in re.split(r"[,\n]", rows) if row.strip()], dtype=float).T
    return Certified(
        np.array([line.split() for line in table.strip().splitlines()], dtype=float), y, inputs[None]
    )


def read(folder: Path, name: str):
    head, rows = re.split(r"\nData: +y.*\n", (folder / "nist_strd" / f"{name}.dat").read_text())
    table = np.array(re.findall(r"^ *b\d *= *(\S+) +(\S+) +(\S+) +(\S+)", head, re.MULTILINE), dtype=float)
    y, *inputs = np.array([row.split() for row in rows.splitlines() if row.strip()], dtype=float).T
    return Certified(table, y, np.array(inputs))


def pose(name, certified):
    """Least squares on plain differences; a parameter starts between NIST's two starting values."""
    symbols = (x,) if len(certified.x) == 1 else (x1, x2)
    starts = np.sort(certified.table[:, :2], axis=1).tolist()
    law = Law(
        name=name,
        loss=MODELS[name],
        inputs=tuple(Input(s, s.name, "predictor") for s in symbols),
        parameters=tuple(
            Parameter(b, -np.inf, np.inf, (low, high), "", "")
            for b, (low, high) in zip(B, starts, strict=False)
        ),
        source=Source("NIST StRD"),
        spec=LawSpec(name),
    )
    y = np.log(certified.y) if name == "Nelson" else certified.y
    one, each = np.ones(len(y)), np.arange(len(y))
    data = {s.name: column for s, column in zip(symbols, certified.x, strict=True)}
    block = Block("loss", data, y, one, one, one, cluster=each, row=each, raw=True)
    free = np.arange(len(starts))
    return Problem(law, (block,), free, base=np.zeros(len(starts)), sigma=(1.0,), delta=np.inf)


def digits(found, certified):
    """Matching digits of the worst of several numbers; NIST prints eleven."""
    return float(-np.log10(np.maximum(np.abs(found / certified - 1), 1e-11).max()))


def check(name, certified):
    problem = pose(name, certified)
    starts, value, error = certified.table[:, :2].T, certified.table[:, 2], certified.table[:, 3]
    optimum = polish(problem, problem.coordinates(starts))
    assert optimum.converged.all()
    for start, u in enumerate(optimum.u, start=1):
        case = f"{name} from start {start}"
        assert digits(problem.theta(u), value) >= DIGITS, case
        values, slopes = problem.linearised(u[None])
        spread = covariance(problem, slopes[0].T, values[0] - problem.targets)
        if name not in INEXACT:
            assert digits(problem.reach * np.sqrt(np.diag(spread)), error) >= DIGITS, case


@pytest.mark.parametrize("name", TYPED)
def test_certified_fits_are_reached(name):
    check(name, typed(name))


@pytest.mark.parametrize("name", [name for name in MODELS if name not in TYPED])
def test_the_other_certified_fits_are_reached(name, public_data):
    check(name, read(public_data, name))


@pytest.mark.parametrize("name", TYPED)
def test_what_is_typed_here_is_what_nist_says(name, public_data):
    ours, theirs = typed(name), read(public_data, name)
    assert np.array_equal(ours.table, theirs.table)
    assert np.array_equal(ours.y, theirs.y)
    assert np.array_equal(ours.x, theirs.x)


# ---- intervals

#: Rates of a reaction with treated enzyme (Bates and Watts 1988, table A1.3).
PUROMYCIN = (
    [0.02, 0.02, 0.06, 0.06, 0.11, 0.11, 0.22, 0.22, 0.56, 0.56, 1.10, 1.10],
    [76, 47, 97, 107, 123, 139, 159, 152, 191, 201, 207, 200],
)


def optimum_of(problem, start):
    found = polish(problem, problem.coordinates(np.array([start], float)))
    assert found.converged.all()
    return Optimum(found.u, found.cost, found.converged)


@pytest.mark.parametrize(
    ("name", "level", "start", "ends"),
    [
        ("Misra1a", 0.90, (250, 5e-4), ((234.21794, 243.88602), (5.371981e-4, 5.631384e-4))),
        ("Puromycin", 0.95, (205, 0.08), ((197.3019, 229.2891), (0.046920, 0.086157))),
    ],
)
def test_profile_intervals_are_those_of_scipy(name, level, start, ends, monkeypatch):
    """Found by least squares of the others and a root finder; R prints 197.302, 229.290, .046925, .086160."""
    if name == "Puromycin":
        monkeypatch.setitem(MODELS, name, b1 * x / (b2 + x))
        conc, rate = (np.array(column, float) for column in PUROMYCIN)
        problem = pose(name, Certified(np.array([start, start], float).T, rate, conc[None]))
    else:
        problem = pose(name, typed(name))
    optimum = optimum_of(problem, start)
    for place, (low, high) in enumerate(profile(problem, optimum, level)):
        for got, expected in zip((low, high), ends[place], strict=True):
            u = optimum.u[0].copy()
            u[place] = got
            width = ends[place][1] - ends[place][0]
            assert problem.theta(u)[place] == pytest.approx(expected, abs=0.002 * width), (name, place)


def test_student_draws_are_as_wide_as_certified_errors_say():
    certified = typed("Misra1a")
    problem = pose("Misra1a", certified)
    optimum = optimum_of(problem, (250, 5e-4))
    u, df = draw("student", problem, optimum, 20_000, np.random.default_rng(0))
    assert df == len(certified.y) - 2
    found = np.quantile(np.array([problem.theta(row) for row in u]), [0.05, 0.95], axis=0)
    half = student_quantile(df, 0.95) * certified.table[:, 3]
    for k, value in enumerate(certified.table[:, 2]):
        assert found[:, k] == pytest.approx([value - half[k], value + half[k]], abs=0.05 * half[k])
