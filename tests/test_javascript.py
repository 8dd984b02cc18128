"""Laws in the browser: the JavaScript of every law gives what Python gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib

import numpy as np
import pytest
from laws_of_ones_own import KUMAR
from scipy.special import erfinv

from bitlaw.errors import ConfigError
from bitlaw.laws import LAWS, PUBLISHED, Law, chain, chinchilla, law_from_data, published
from bitlaw.laws.javascript import javascript, runtime

POINTS = 1000
RUN = """
const tests = JSON.parse(require("fs").readFileSync(0, "utf8"));
const out = tests.map(({ source, theta, data }) => {
  const law = (0, eval)(source)(bitlaw.runtime);
  return theta.map((t, k) => [
    bitlaw.runtime.guarded(law, "total", t, data[k]),
    bitlaw.runtime.guarded(law, "gap", t, data[k]),
    law.nEff(t, data[k]),
  ]);
});
console.log(JSON.stringify(out));
"""
LABELS = {
    "w": ("int4", "nvfp4"),
    "a": ("int4", "e4m3"),
    "kv": ("int8",),
    "grad": ("e4m3",),
    "post": ("int3", "int4"),
}


def node(code: str, given: object) -> object:
    """What JavaScript prints, given JSON on its input."""
    if shutil.which("node") is None:
        pytest.skip("needs node: apt-get install nodejs")
    out = subprocess.run(
        ["node", "-e", runtime() + code], input=json.dumps(given), capture_output=True, text=True, timeout=60
    )
    assert out.returncode == 0, out.stderr[-2000:]
    return json.loads(out.stdout)


def labelled(law: Law) -> Law:
    columns = law.label_columns
    return law.for_labels({c: LABELS[c.partition("_")[0]] for c in columns}) if columns else law


def inputs(law: Law, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Random rows (count, 1) of what a law reads, unquantised ones among them."""
    data: dict[str, np.ndarray] = {}
    for item in law.inputs:
        name = item.column

        def spread(low: float, high: float) -> np.ndarray:
            return np.exp(rng.uniform(np.log(low), np.log(high), count))

        if item.label is not None:
            value = rng.integers(0, 2, count).astype(float)
        elif name == "params":
            value = spread(1e6, 1e12)
        elif name == "unique_tokens":
            value = data["tokens"][:, 0] * rng.uniform(0.01, 1, count)
        elif name in ("tokens", "batch_tokens", "steps"):
            value = spread(1e3, 1e6) if name == "steps" else spread(1e8, 1e13)
        elif name == "loss":
            value = rng.uniform(0.5, 8, count)
        elif name.endswith("_sparsity"):
            value = np.where(rng.random(count) < 0.2, 0.0, rng.uniform(0, 0.999, count))
        elif name.endswith(("_group", "_samples")):
            value = spread(2, 1024)
        else:  # bits, and bits of exponent, mantissa and capacity
            value = np.where(rng.random(count) < 0.3, item.default or 1e6, rng.uniform(2, 16, count))
        data[name] = value[:, None]
    return data


def constants(law: Law, rng: np.random.Generator, data: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Random constants (count, p) from the ranges that fits start in."""
    columns = []
    for p in law.parameters:
        low, high = p.start if p.fixed is None else (p.fixed, p.fixed)
        value = (
            np.exp(rng.uniform(np.log(low), np.log(high), count))
            if low > 0
            else rng.uniform(low, high, count)
        )
        if p.scale_of:
            top, _, below = p.scale_of.partition("/")
            middle = np.exp(np.log(data[top]).mean())
            value = value * middle / (np.exp(np.log(data[below]).mean()) if below else 1)
        columns.append(value)
    return np.stack(columns, axis=1)


def cases() -> dict[str, tuple[Law, np.ndarray, dict[str, np.ndarray]]]:
    """Every law with random constants, and every published set, at points of which most are in its domain."""
    rng, out = np.random.default_rng(7), {}
    laws = {name: (labelled(law), None) for name, law in LAWS.items()}
    laws |= {name: (p.law, p.law.vector(p.values)) for name, p in PUBLISHED.items()}
    both = published("gadre-2024-c4-error"), published("gadre-2024-c4")
    laws["chain"] = (chain(both[0].law, both[1].law), None)
    laws["own"] = (law_from_data(tomllib.loads(KUMAR)), None)
    for name, (law, values) in laws.items():
        count = 4 * POINTS
        data = inputs(law, rng, count)
        if law.gap != 0 and "post_bits" in data:  # half of them as most gaps ask: trained unquantised
            plain = rng.random((count, 1)) < 0.5
            for column in data:
                if column.endswith("_bits") and column != "post_bits":
                    data[column] = np.where(plain, 1e6, data[column])
        theta = constants(law, rng, data, count) if values is None else np.tile(values, (count, 1))
        inside = np.isfinite(law.compiled.guarded("total", theta, data)[:, 0])
        if law.gap != 0:
            inside &= law.compiled.guarded("gap", theta, data)[:, 0] < np.inf
        order = np.argsort(~inside, kind="stable")[: POINTS + 100]  # and some that are not
        out[name] = (law, theta[order], {column: value[order] for column, value in data.items()})
    return out


@pytest.mark.slow
def test_every_law_is_the_same_in_javascript():
    tests = cases()
    given = [
        {
            "source": javascript(law),
            "theta": theta.tolist(),
            "data": np.concatenate([data[c] for c in law.columns], axis=1).tolist(),
        }
        for law, theta, data in tests.values()
    ]
    for (name, (law, theta, data)), found in zip(tests.items(), node(RUN, given), strict=True):
        found = np.array(found, dtype=float)  # null becomes NaN
        for k, what in enumerate(("total", "gap") if law.gap != 0 else ("total",)):
            expected = law.compiled.guarded(what, theta, data)[:, 0]
            inside = np.isfinite(expected)
            assert inside.sum() >= POINTS, (name, what, inside.sum())
            assert (np.isfinite(found[:, k]) == inside).all(), (name, what)
            np.testing.assert_allclose(
                found[inside, k], expected[inside], rtol=1e-12, err_msg=f"{name} {what}"
            )
        size = law.compiled.n_eff(theta, data)[:, 0] if "params" in law.columns else None
        if size is not None:
            inside = np.isfinite(size) & np.isfinite(found[:, 0])
            np.testing.assert_allclose(found[inside, 2], size[inside], rtol=1e-12, err_msg=name)


def test_the_inverse_of_the_error_function_is_whole():
    shares = np.concatenate(
        [[0.0, 1e-300, 1e-10], np.linspace(-0.999, 0.999, 999), 1 - 10.0 ** -np.arange(1, 16), [1.0, 2.0]]
    )
    code = 'const y = JSON.parse(require("fs").readFileSync(0, "utf8"));'
    code += "console.log(JSON.stringify(y.map((v) => String(bitlaw.runtime.erfinv(v)))));"
    found = np.array([float(v.replace("Infinity", "inf")) for v in node(code, shares.tolist())])
    np.testing.assert_allclose(found, erfinv(shares), rtol=3e-15, equal_nan=True)


def test_a_law_without_labels_is_refused():
    with pytest.raises(ConfigError, match="for_labels"):
        javascript(LAWS["efficiency"])


def test_names_from_a_file_do_not_stand_in_the_code():
    law = chinchilla.with_precision(w="efficiency").for_labels({"w_format": ["alert(1)//"]})
    assert "alert" not in javascript(law)
