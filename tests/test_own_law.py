"""Laws of one's own: equal to the built-in ones, strict about every word, and unable to run anything."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import CELLS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws_of_ones_own import CHINCHILLA, HOSTILE, KUMAR, expressions, spoilt, texts, values
from watch import watched

import bitlaw as bl
from bitlaw import ConfigError, DataError, Runs, plan, write_runs
from bitlaw.laws import Law, chinchilla, from_spec, get, kumar, law_from_data, published, read_law
from bitlaw.laws.expression import _Reader, read_expression
from bitlaw.report import write_report

BOUND = 20.0  # seconds for any one text, on a busy machine; the longest known takes one


def data(text=CHINCHILLA, **changes):
    """Plain data of a law, with changes by dotted path."""
    plain = tomllib.loads(text)
    for path, value in changes.items():
        *above, last = path.split("__")
        place = plain
        for key in above:
            place = place.setdefault(key, {})
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return plain


# ---- equal to the laws that are built in


@pytest.mark.parametrize(
    ("text", "built_in", "constants"),
    [(CHINCHILLA, chinchilla, "chinchilla-2024"), (KUMAR, kumar, "kumar-2024")],
)
def test_a_built_in_law_written_as_toml_is_that_law(tmp_path, text, built_in, constants):
    path = tmp_path / "law.toml"
    path.write_text(text)
    own, known = read_law(path), published(constants).values
    assert set(own.names) == set(built_in.names)
    for name in own.names:
        mine, theirs = (next(p for p in law.parameters if p.name == name) for law in (own, built_in))
        assert (mine.low, mine.high, mine.start, mine.fixed) == (
            theirs.low,
            theirs.high,
            theirs.start,
            theirs.fixed,
        )
    bits = [{}] + [{f"{p}_bits": b} for p in ("w", "a", "kv", "post") for b in (4.0, 5.0, 8.0)]
    n, d = np.array(CELLS).T
    for inputs in bits if "w_bits" in own.columns else [{}]:
        both = [law.predict(known, params=n, tokens=d, **inputs) for law in (own, built_in)]
        assert both[0] == pytest.approx(both[1], rel=1e-14)
        for part in ("total", "gap"):
            jacobians = []
            for law in (own, built_in):
                rows = law.arrange({"params": n, "tokens": d, **inputs})
                jacobian = getattr(law.compiled, part).jacobian(law.vector(known), rows)[1]
                jacobians.append(jacobian[:, [law.names.index(name) for name in own.names]])
            assert jacobians[0] == pytest.approx(jacobians[1], rel=1e-11, abs=1e-300)
    if "w_bits" in own.columns:
        for inputs, words in (
            ({"w_bits": 0.5}, "too few bits"),
            ({"w_bits": 4.0, "post_bits": 3.0}, "not positive"),
        ):
            with pytest.raises(bl.LawError, match=words):
                own.predict(known, params=1e8, tokens=1e9, **inputs)


def test_a_gap_is_exactly_zero_where_nothing_was_quantised():
    law = law_from_data(
        data(gap="C * D**k * post**-2", inputs={"post": "post_bits"})
        | {
            "parameters": data()["parameters"]
            | {k: {"low": 1e-9, "high": 9, "start": [0.1, 1]} for k in ("C", "k")}
        }
    )
    values = dict(published("chinchilla-2024").values, C=0.1, k=0.5)
    gaps = law.predict_gap(values, params=1e8, tokens=1e9, post_bits=np.array([4.0, 1e6]))
    assert gaps[0] == pytest.approx(0.1 * 1e9**0.5 / 16)
    assert gaps[1] == 0.0
    with pytest.raises(ConfigError, match="has a gap already"):
        law.with_gap("qid")


def test_own_laws_compose_with_forms_and_ties():
    law = law_from_data(data()).with_precision(w="kumar").with_gap("kumar").tie(beta="alpha")
    built_in = chinchilla.with_precision(w="kumar").with_gap("kumar").tie(beta="alpha")
    assert law.loss == built_in.loss
    assert from_spec(law.spec.as_json()).loss == law.loss
    reads_bits = law_from_data(data(loss="E + A * N**-alpha + B * D**-beta / w", inputs={"w": "w_bits"}))
    with pytest.raises(ConfigError, match="reads w_bits as P_w, and that law as w"):
        reads_bits.with_precision(w="kumar")


@pytest.mark.parametrize(
    ("text", "expected", "slopes"),
    [
        ("exp(x)*y", np.e * 3, (np.e * 3, np.e)),
        ("log(y)*x", np.log(3), (np.log(3), 1 / 3)),
        ("log2(y)*x", np.log2(3), (np.log2(3), 1 / (3 * np.log(2)))),
        ("sqrt(x+y)", 2, (0.25, 0.25)),
        ("tanh(x*y)", np.tanh(3), (3 / np.cosh(3) ** 2, 1 / np.cosh(3) ** 2)),
        ("min(x, y)", 1, (1, 0)),
        ("max(x, y)", 3, (0, 1)),
        ("max(max(2*x, y), x*x)", 3, (0, 1)),
        ("max(x, y - 2)", 1, (0.5, 0.5)),
        ("-x**2 + +y", 2, (-2, 1)),
        ("2**x**2 - y", -1, (4 * np.log(2), -1)),
        ("quantized(w)*x + 0.1*y + 1.2345678901234567", 2.5345678901234567, (1, 0.1)),
        ("(1/3)*y + x*1e12/1e11", 11, (10, 1 / 3)),
    ],
)
def test_functions_and_their_derivatives(text, expected, slopes):
    parameter = {"low": -9, "high": 9, "start": [0, 1]}
    plain = {
        "name": "f",
        "loss": f"({text}) + 0*N + N/N - 1 + N - N + U - U",
        "parameters": {"x": parameter, "y": parameter},
    }
    plain["loss"] = f"({text}) * N / N + log(N) - log(N) + N"
    plain["inputs"] = {"w": "w_bits"} if "w" in text else {}
    law = law_from_data(plain)
    value, jacobian = law.compiled.total.jacobian(
        np.array([1.0, 3.0]),
        {"params": np.array([2.0]), **({"w_bits": np.array([4.0])} if "w" in text else {})},
    )
    assert value[0] - 2 == pytest.approx(expected, rel=1e-15)
    assert jacobian[0] == pytest.approx(slopes, rel=1e-13)


ODD_NAMES = """
amax select numpy nan x0 x1 array heaviside maximum less inf pi I S O E Symbol print self lambdify Dummy_1 zoo
"""


def test_names_never_reach_the_code_that_is_compiled():
    """Names that would hide NumPy's own, or the compiler's temporaries, are names like others."""
    names = ODD_NAMES.split()
    parameter = {"low": 1e-3, "high": 9, "start": [0.1, 1]}
    terms = " + ".join(f"max({name}, log(N)) * exp(-{name})" for name in names)
    law = law_from_data({"name": "names", "loss": terms, "parameters": dict.fromkeys(names, parameter)})
    got, jacobian = law.compiled.total.jacobian(np.ones(len(names)), {"params": np.full(2, np.e**3)})
    assert got == pytest.approx(len(names) * 3 / np.e)
    assert jacobian == pytest.approx(-3 / np.e)


# ---- through the whole house


TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "K": 3.0, "gamma": 1.5}
WITH_BITS = (
    CHINCHILLA.replace("D**-beta", "D**-beta + K * exp(-w_bits / gamma)").replace(
        "[parameters.E]", '[inputs]\nw_bits = "w_bits"\n[parameters.E]'
    )
    + "[parameters.K]\nlow = 1e-3\nhigh = 1e3\nstart = [0.1, 10]\n"
    + "[parameters.gamma]\nlow = 0.05\nhigh = 20\nstart = [0.3, 6]\nunit = 'bits'\n"
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with a law of one's own and runs that follow it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my-law.toml").write_text(WITH_BITS)
    law = read_law(folder / "my-law.toml")
    rng, rows = np.random.default_rng(0), []
    for n, d in CELLS:
        for bits in (3, 4, 6, 8, None):
            seen = {"w_bits": bits} if bits else {}
            loss = float(law.predict(TRUTH, params=n, tokens=d, **seen)) * np.exp(
                1e-4 * rng.standard_normal()
            )
            rows.append(
                {"params": n, "tokens": d, "loss": loss, **({"w_format": f"int{bits}"} if bits else {})}
            )
    write_runs(Runs.from_rows(rows), folder / "runs.csv")
    return folder


@pytest.fixture(scope="module")
def fitted(workshop):
    return bl.fit(str(workshop / "my-law.toml"), workshop / "runs.csv", draws=60, hold_out=bl.largest())


def test_an_own_law_is_fitted(fitted):
    assert not any("does not read it" in note for note in fitted.notes)
    for name, value in TRUTH.items():
        assert fitted.values[name] == pytest.approx(value, rel=0.05), name
    assert fitted.held_out.error < 3e-4


def test_a_fit_of_an_own_law_survives_its_file(fitted, tmp_path):
    path = tmp_path / "fit.json"
    fitted.save(path)
    again = bl.load_fit(path)
    assert again.law.loss == fitted.law.loss
    assert again.law == fitted.law
    inputs = {"params": np.array([1e8, 7e9]), "tokens": 1e11, "w_bits": 4.0}
    assert (again.predict(**inputs) == fitted.predict(**inputs)).all()
    assert (again.band(**inputs)[1] == fitted.band(**inputs)[1]).all()
    assert again.as_json() == fitted.as_json()


@pytest.mark.parametrize("spoiled", [*HOSTILE[:10], "E + A", "", 7, None, ["E"]])
def test_a_hostile_fit_of_an_own_law_is_refused(fitted, tmp_path, spoiled):
    plain = fitted.as_json()
    plain["law"]["own"]["loss"] = spoiled
    (tmp_path / "fit.json").write_text(json.dumps(plain))
    with pytest.raises(DataError, match="not a complete fit"):
        bl.load_fit(tmp_path / "fit.json")
    plain["law"]["own"] = spoiled or "x"
    (tmp_path / "fit.json").write_text(json.dumps(plain))
    with pytest.raises(DataError, match="not a complete fit"):
        bl.load_fit(tmp_path / "fit.json")


def test_an_own_law_is_planned_with_compared_and_shown(fitted, workshop, tmp_path):
    answer = plan(fitted, budget=1e19)
    assert 4 < answer["bits"].value < 12
    table = bl.read_runs(workshop / "runs.csv")
    ranked = bl.compare(table, [fitted.law, "chinchilla"])
    assert ranked.entries[0].name == "my-chinchilla"
    write_report(tmp_path / "report.html", table, fitted, plans=[answer])
    assert "<mi>w</mi><mi>bits</mi>" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_the_command_line_takes_a_file_where_a_law_is_named(workshop):
    def run(*words):
        command = [sys.executable, "-m", "bitlaw", *words]
        return subprocess.run(command, cwd=workshop, capture_output=True, text=True)

    shown = run("laws", "show", "my-law.toml")
    assert shown.returncode == 0, shown.stderr
    assert "K*exp(-w_bits/gamma)" in shown.stdout
    out = run("fit", "runs.csv", "--law", "my-law.toml", "--save", "fit.json", "--json")
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout)["law"]["own"]["name"] == "my-chinchilla"
    assert run("plan", "--fit", "fit.json", "--budget", "1e20").returncode == 0
    bad = run("fit", "runs.csv", "--law", "absent.toml")
    assert (bad.returncode, bad.stderr) == (
        2,
        "bitlaw: there is no file absent.toml; name the TOML file of a law\n",
    )


def test_rows_of_parts_that_an_own_law_reads_are_used():
    plain = data(loss="E + A * N**-alpha + B * D**-beta * (1 + quantized(g) / g)", inputs={"g": "grad_bits"})
    law = law_from_data(plain)
    rows = [
        {"params": n, "tokens": d, "loss": 3 + 1e7 / n + k * 0.1, **({"grad_format": "int8"} if k else {})}
        for n, d in CELLS
        for k in (0, 1)
    ]
    fit = bl.fit(law, Runs.from_rows(rows), draws=0)
    assert fit.rows["loss"] == len(rows)
    assert law.parts == ("grad",)


def test_labels_and_other_columns_are_inputs():
    inputs = {"mxfp": "w_format=int4", "U": "unique_tokens", "wd": "weight_decay", "cap": "a_capacity"}
    law = law_from_data(data(loss="E + A*N**-alpha + B*U**-beta * (1 + mxfp) + wd/cap", inputs=inputs))
    values = {"E": 1.0, "A": 1.0, "B": 1.0, "alpha": 1.0, "beta": 1.0}
    got = law.predict(
        values, params=1.0, unique_tokens=0.5, weight_decay=0.0, w_format=np.array(["int4", "bf16"])
    )
    assert got.tolist() == [6.0, 4.0]


def test_the_files_in_the_docs_are_laws(workshop, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "own-laws.md").read_text()
    first, second = re.findall(r"```toml[^\n]*\n(.*?)```", page, re.S)
    (tmp_path / "my-law.toml").write_text(first)
    fit = bl.fit(str(tmp_path / "my-law.toml"), workshop / "runs.csv", draws=0)
    assert fit.values["gamma"] == pytest.approx(TRUTH["gamma"], rel=0.05)
    assert {e.parameter.name: e.status for e in fit.estimates}["beta"] == "fixed"
    law = law_from_data(tomllib.loads(second))
    assert law.gap != 0
    assert law.conditions[0].sentence.startswith("the gap of binary weights")


# ---- what is refused


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_refused_in_bounded_time(text):
    began = time.perf_counter()
    with watched() as done, pytest.raises(ConfigError) as caught:
        law_from_data(data(loss=f"E + A * N**-alpha + B * D**-beta + {text}"))
    assert done == []
    assert str(caught.value).startswith("loss: ")
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
    assert time.perf_counter() - began < BOUND
    with pytest.raises(ConfigError):
        law_from_data(data(loss=text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("E.real", "attribute"),
        ("f(N)", "no function 'f'"),
        ("(lambda: N)()", "':'"),
        ("[N for N in D]", r"'\['"),
        ("'N'", '"\'"'),
        ("f'{N}'", '"\'"'),
        ("(N := 2)", "':'"),
        ("exp(*N)", "starred"),
        ("exp(x=N)", "'='"),
        ("__name__", "declared nowhere"),
        ("E\u0430", "0430"),
        ("N\uff0b1", "ff0b"),
        ("N[0]", r"'\['"),
        ("N < D", "'<'"),
        ("N and D", "boolop"),
        ("not N", "not"),
        ("N ^ 2", r"powers with \*\*"),
        ("9**9**9**9 * N", "cannot|can be computed"),
        ("N**1000", "exponent 1000"),
        ("N * 2e12", "as large as 1e[+]12"),
        ("1e400 * N", "as large as"),
        ("nan * N", "'nan' is declared nowhere"),
        ("True * N", "constant"),
        ("N\x00", "x00"),
        ("(" * 21 + "tanh(N+" * 21 + "N" + ")" * 42, "levels deep"),
        ("-" * 30 + "N", "levels deep"),
        ("N + " * 151 + "N", "300 numbers"),
        ("N" * 2001, "2000 characters"),
        ("exp(N, N)", "takes 1 argument, not 2"),
        ("max(N)", "takes 2 arguments, not 1"),
        ("quantized(N)", "name that holds bits"),
        ("gama * N", "did you mean 'gamma'"),
        ("N / 0", "can be computed"),
        ("sqrt(-1) * N", "can be computed"),
        ("(-2)**N", "positive base"),
        ("(-2)**0.5 * N", "can be computed"),
        ("((1000*N)**100)", "out of all bounds"),
        ("3", "always 3"),
        ("N - N", "always 0"),
        ("", "not an expression"),
        ("N N", "not an expression"),
        ("2(N)", "call"),
        ("N # no", "'#'"),
        ("N; D", "';'"),
    ],
)
def test_each_thing_that_is_not_an_expression_says_why(text, words):
    names = {name: bl.laws.law.sp.Symbol(name) for name in ("E", "N", "D", "gamma")}
    with pytest.raises(ConfigError, match=words):
        read_expression(text, names)


@pytest.mark.parametrize(
    "text",
    [
        "N.real", "N[0]", "N[0:1]", "lambda: N", "[N]", "(N, D)", "{N}", "{N: D}", "'N'", "b'N'", "f'{N}'", "(N := D)",
        "[x for x in N]", "{x for x in N}", "(x for x in N)", "{x: x for x in N}", "N if D else N", "N < D", "N and D",
        "not N", "~N", "N // D", "N % D", "N @ D", "N << 1", "N | D", "N & D", "N ^ D", "exp(*N)", "exp(**N)",
        "exp(x=N)",
        "N(D)", "exp(N)(D)", "N.exp(D)", "True", "None", "...", "1j", "await_", "__import__('os')",
    ],
)  # fmt: skip
def test_the_walk_refuses_what_the_characters_let_through(text):
    """The list of characters is a first net; the walk over the tree must hold without it."""
    import sympy as sp

    reader = _Reader(text, {"N": sp.Symbol("N"), "D": sp.Symbol("D")}, ())
    with watched() as done, pytest.raises(ConfigError):
        reader.read(ast.parse(text, mode="eval").body, 0)
    assert done == []


P = {"low": 0.1, "high": 1.0, "start": [0.2, 0.3]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ...}, "the law: 'name' is missing"),
        ({"loss": ...}, "the law: 'loss' is missing"),
        ({"parameters": ...}, "the law: 'parameters' is missing"),
        ({"los": "N"}, "the law: unknown key 'los'; did you mean 'loss'"),
        ({"name": "../x"}, "name: '../x' is no name"),
        ({"name": "x\n"}, "is no name"),
        ({"name": "x" * 61}, "is no name"),
        ({"name": "kumar"}, "'kumar' is a law of bitlaw itself"),
        ({"name": 3}, "name: 3 is no name"),
        ({"loss": 3}, "loss: an expression is text, not 3"),
        ({"source": 3}, "source: this must be printable text"),
        ({"source": "\x1b[2J"}, "source: this must be printable text"),
        ({"source": "x" * 301}, "300 characters"),
        ({"parameters": []}, r"parameters: this must be a table, \[parameters\]"),
        ({"inputs": "w_bits"}, "inputs: this must be a table"),
        ({"conditions": {}}, r"conditions: this must be tables, \[\[conditions\]\]"),
        ({"conditions": ["N"]}, r"conditions\[0\]: this must be a table"),
        ({"conditions": [{"sentence": "s"}]}, r"conditions\[0\]: 'expression' is missing"),
        ({"conditions": [{"expression": "x"}]}, r"conditions\[0\].expression: 'x' is declared nowhere"),
        ({"conditions": [{"expression": "N", "sentence": "a\u202eb"}]}, r"conditions\[0\].sentence: .* printable"),
        ({"conditions": [{"expression": "N"}] * 21}, "of 20 at most"),
        ({"parameters__E__lo": 1}, "parameters.E: unknown key 'lo'; did you mean 'low'"),
        ({"parameters__E__low": ...}, "parameters.E: 'low' is missing"),
        ({"parameters__E__low": True}, "parameters.E.low: this must be a number.* not True"),
        ({"parameters__E__low": "1"}, "parameters.E.low: this must be a number"),
        ({"parameters__E__low": float("nan")}, "parameters.E.low: .* not nan"),
        ({"parameters__E__high": float("inf")}, "parameters.E.high: .* not inf"),
        ({"parameters__E__high": 10**5000}, "parameters.E.high: .* not an int"),
        ({"parameters__E__low": 20.0}, "low must lie below high"),
        ({"parameters__E__start": [5, 0.1]}, "start and fixed between them"),
        ({"parameters__E__start": [0.1, 50]}, "start and fixed between them"),
        ({"parameters__E__start": [0.1]}, "parameters.E.start: this must be two numbers"),
        ({"parameters__E__start": 1}, "parameters.E.start: this must be two numbers"),
        ({"parameters__E__start": [0.1, True]}, "parameters.E.start: this must be a number"),
        ({"parameters__E__fixed": 21}, "start and fixed between them"),
        ({"parameters__E__fixed": None}, "parameters.E.fixed: this must be a number"),
        ({"parameters__E__unit": 1}, "parameters.E.unit: this must be printable text"),
        ({"parameters__E": 3}, "parameters.E: this must be a table, not 3"),
        ({"parameters__F": P}, "parameters.F: the loss does not depend on it"),
        ({"parameters__lambda": P}, "'lambda' is a word of expressions"),
        ({"parameters__exp": P}, "'exp' is a word of expressions"),
        ({"parameters__L": P}, "'L' stands for the loss itself"),
        ({"parameters__N": P}, "parameters.N: N is an input"),
        ({"parameters___class": P}, "parameters: '_class' is no name"),
        ({"parameters__\u0410": P}, r"parameters: '\\u0410' is no name"),
        ({"parameters__a b": P}, "parameters: 'a b' is no name"),
        ({"loss": "E + A * N**-alpa + B * D**-beta"}, "loss: 'alpa' is declared nowhere; did you mean 'alpha'"),
        ({"loss": "E + A * N**-alpha"}, "parameters.B: the loss does not depend on it"),
        ({"loss": "E + A * N**-alpha + B * D**-beta + L"}, "'L' is declared nowhere"),
        ({"loss": "E + A + alpha + B + beta"}, "one parameter and one input"),
        ({"loss": "N", "parameters": {}}, "one parameter and one input"),
        ({"inputs": {"w": "w_bits"}}, "inputs.w: the loss does not depend on it"),
        ({"inputs": {"N": "flops"}}, "inputs.N: N is params already"),
        ({"inputs": {"w": "loss"}}, "is what laws predict"),
        ({"inputs": {"w": "W_BITS"}}, "'W_BITS' is no name"),
        ({"inputs": {"w": "w bits"}}, "is no name"),
        ({"inputs": {"w": "q_bits"}}, "there is no part 'q'"),
        ({"inputs": {"w": "w_format"}}, "read 'w_bits', or one name as 'w_format=int4'"),
        ({"inputs": {"w": 4}}, "inputs.w: 4 is no name"),
        ({"inputs": {"alpha": "flops"}}, "parameters.alpha: alpha is an input"),
        ({"gap": "E / N"}, "gap: it must read post_bits"),
        ({"gap": "x"}, "gap: 'x' is declared nowhere"),
        ({"parameters": {f"p{k}": P for k in range(41)}}, "of 40 at most"),
    ],
)  # fmt: skip
def test_each_mistake_names_its_place(changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        law_from_data(data(**changes))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name = 'x'\nname = 'y'", "not valid TOML: Cannot overwrite"),
        (b"name = ", "not valid TOML"),
        (b"\xff", "not valid TOML"),
        (b"\xef\xbb\xbfname = 'x'", "not valid TOML"),
        (b"name = 'x'\x00", "not valid TOML"),
        (b"x = " + b"9" * 5000, "not valid TOML"),
        (b"x = " + b"[" * 30_000, "not valid TOML"),
        (b"a." * 20_000 + b"a = 1", "more than 300 dots"),
        (b"#" * 64_001, "larger than 64000 bytes"),
        (b"name = 2020-02-30", "not valid TOML"),
        (b"name = 2020-02-20\nloss = 'N'\n[parameters]", "name: datetime.date"),
        (CHINCHILLA.replace("1e-4", "nan").encode(), "parameters.E.low"),
        (CHINCHILLA.replace("1e-4", "true").encode(), "parameters.E.low"),
        (CHINCHILLA.replace("[parameters.E]", "[parameters.E]\nlow = 1").encode(), "not valid TOML"),
    ],
)
def test_a_file_that_is_no_law_is_refused(tmp_path, content, words):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    began = time.perf_counter()
    with watched() as done, pytest.raises(ConfigError, match=words) as caught:
        read_law(path)
    assert done == []
    assert "bad.toml" in str(caught.value)
    assert time.perf_counter() - began < BOUND


def test_paths_that_are_no_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.toml", "/dev/zero", "x" * 5000 + ".toml", "a\x00.toml"):
        with pytest.raises(ConfigError):
            read_law(path)
    with pytest.raises(ConfigError, match="there is no file"):
        get("absent.toml")


# ---- any text at all


def check(make, compile_it=False):
    """Only a law or a ConfigError comes out, in bounded time, and nothing is run."""
    began = time.perf_counter()
    with watched() as done:
        try:
            made = make()
        except ConfigError as error:
            made = error
    assert done == []
    assert time.perf_counter() - began < BOUND
    if not isinstance(made, Law):
        assert str(made).isprintable(), made
        assert len(str(made)) < 1500
        return
    assert from_spec(json.loads(json.dumps(made.spec.as_json()))) == made
    if compile_it:
        rows = {i.column: np.array([3.0, 4.0]) for i in made.inputs}
        value, jacobian = made.compiled.total.jacobian(np.full(len(made.parameters), 0.7), rows)
        assert (value.shape, jacobian.shape) == ((2,), (2, len(made.parameters)))
        assert time.perf_counter() - began < 2 * BOUND


def declaring(text):
    """A law of a text, in which whatever names the text uses are declared."""
    used = [name for name in ("E", "A", "B", "alpha", "beta") if name in text]
    plain = {"name": "fuzz", "loss": text, "parameters": dict.fromkeys(used, P)}
    return plain | ({"inputs": {"w": "w_bits"}} if "w" in text else {})


@st.composite
def spoilt_data(draw):
    """Plain data of a valid law of which one or two places hold something else."""
    plain = tomllib.loads(draw(st.sampled_from([CHINCHILLA, KUMAR])))
    for _ in range(draw(st.integers(1, 2))):
        place, keys = plain, []
        while isinstance(place, (dict, list)) and place and (not keys or draw(st.booleans())):
            keys.append(
                draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            )
            inner = place[keys[-1]]
            if not isinstance(inner, (dict, list)):
                break
            place, above = inner, place
        above = plain
        for key in keys[:-1]:
            above = above[key]
        if draw(st.integers(0, 4)) == 0 and isinstance(above, dict):
            above[draw(st.text(max_size=8))] = draw(values)
        else:
            above[keys[-1]] = draw(values | texts)
    return plain


anything = st.one_of(
    texts.map(lambda text: ("text", text)),
    spoilt(CHINCHILLA).map(lambda text: ("toml", text)),
    spoilt(KUMAR).map(lambda text: ("toml", text)),
    spoilt_data().map(lambda plain: ("data", plain)),
    values.map(lambda plain: ("data", plain)),
)


def try_it(drawn, folder, compile_it):
    kind, what = drawn
    if kind == "text":
        check(lambda: law_from_data(declaring(what)), compile_it)
    elif kind == "data":
        check(lambda: law_from_data(what), compile_it)
    else:
        path = folder / "fuzz.toml"
        path.write_bytes(what.encode("utf-8", "surrogatepass"))
        check(lambda: read_law(path), compile_it)


quietly = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.mark.slow
@settings(quietly, max_examples=600)
@given(drawn=anything)
def test_any_text_gives_a_law_or_a_sentence(tmp_path_factory, drawn):
    folder = tmp_path_factory.getbasetemp()
    try_it(drawn, folder, compile_it=False)


@settings(quietly, max_examples=60)
@given(drawn=expressions())
def test_whatever_is_taken_can_be_compiled(tmp_path_factory, drawn):
    try_it(("text", drawn), tmp_path_factory.getbasetemp(), compile_it=True)


@pytest.mark.slow
@settings(quietly, max_examples=40_000)
@given(drawn=anything, place=st.integers(0, 49))
def test_any_of_forty_thousand_texts_gives_a_law_or_a_sentence(tmp_path_factory, drawn, place):
    try_it(drawn, tmp_path_factory.getbasetemp(), compile_it=not place)
