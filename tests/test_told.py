"""What a law is not told never means that it costs nothing; what means two things is refused, with a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sympy as sp
from laws_of_ones_own import CHINCHILLA
from test_own_law import data
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw import ConfigError, LawError, Runs, plan
from bitlaw.cli.main import app
from bitlaw.laws import (
    BESIDE,
    INCOMPLETE,
    LAWS,
    PUBLISHED,
    chain,
    chinchilla,
    compatible,
    downstream,
    floating,
    from_spec,
    get,
    kumar,
    law_from_data,
    outer,
    published,
    rules,
    saturating,
    trajectory,
)
from bitlaw.laws.expression import read_expression
from bitlaw.runs import COLUMNS

P = {"low": 1e-3, "high": 9, "start": [0.1, 1]}
AT = {"params": 1e9, "tokens": 1e11}


def own(loss, inputs=None, *parameters, **changes):
    """Chinchilla's text with another loss."""
    plain = data(CHINCHILLA, loss=loss, **changes) | {"inputs": inputs or {}}
    plain["parameters"] |= dict.fromkeys(parameters, P)
    return law_from_data(plain)


BASE = "E + A * N**-alpha + B * D**-beta"


# ---- one symbol, one meaning


@pytest.mark.parametrize(
    ("inputs", "column"),
    [({"w": "w_bits", "v": "w_bits"}, "w_bits"), ({"n2": "params"}, "params"), ({"d2": "tokens"}, "tokens")],
)
def test_a_column_has_one_symbol(inputs, column):
    with pytest.raises(ConfigError, match=f"{column} is .* already"):
        own(f"{BASE} + 1 / {' + 1 / '.join(inputs)}", inputs)


def test_a_label_that_an_own_law_reads_keeps_its_symbol():
    law = own(f"{BASE} + 0.5 * i4", {"i4": "w_format=int4"}).with_precision(w="efficiency")
    law = law.for_labels({"w_format": ["int4"]})
    values = {"E": 1.0, "A": 10.0, "B": 0.01, "alpha": 1.0, "beta": 1.0, "eff_w[int4]": 0.5}
    low, full = law.predict(values, params=10.0, tokens=1.0, w_format=np.array(["int4", "bf16"]))
    assert (low, full) == (pytest.approx(3.51), pytest.approx(2.01))


@pytest.mark.parametrize(
    ("law", "form", "words"),
    [
        (lambda: own(f"{BASE} * gamma_w", {}, "gamma_w"), {"w": "kumar"}, "gamma_w"),
        (lambda: own(f"{BASE} * F", {}, "F"), {"w": "capacity"}, "both have F"),
        (lambda: own(f"{BASE} * P_w", {}, "P_w"), {"w": "kumar"}, "P_w, which is a parameter"),
        (lambda: own(f"{BASE} * P_w", {"P_w": "a_bits"}), {"w": "kumar"}, "P_w, which is a_bits"),
        (lambda: own(f"{BASE} * C_T", {}, "C_T"), "kumar", "both have C_T"),
        (lambda: own(f"{BASE} * k_post", {}, "k_post"), "qid", "both have k_post"),
    ],
)
def test_letters_with_two_meanings_are_refused(law, form, words):
    with pytest.raises(ConfigError, match=words):
        law().with_gap(form) if isinstance(form, str) else law().with_precision(**form)


def test_a_link_and_a_law_share_no_letter_not_even_of_an_input():
    with pytest.raises(ConfigError, match="both have k"):
        chain(LAWS["gadre-error"], own(f"{BASE} + k", {"k": "weight_decay"}))
    assert set(chinchilla.with_precision(w="capacity", a="capacity").names) > {"F", "C"}


@pytest.mark.parametrize(
    ("ties", "words"),
    [({"alpha": "alpha"}, "itself"), ({"alpha": "beta", "beta": "alpha"}, "tied itself"),
     ({"A": "B", "B": "E"}, "tied itself")],
)  # fmt: skip
def test_ties_that_lead_nowhere_are_refused(ties, words):
    with pytest.raises(ConfigError, match=words):
        chinchilla.tie(**ties)
    with pytest.raises(ConfigError, match=words):
        from_spec(chinchilla.spec.as_json() | {"ties": ties})


def test_ties_one_after_the_other_are_made_again_from_their_description():
    law = outer.tie(g="alpha").tie(alpha="beta")
    assert from_spec(law.spec.as_json()).loss == law.loss
    assert law.names == ("E", "A", "B", "beta")


# ---- nothing that was not given costs nothing


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("quest-2025", {"w_format": "int5"}, "it has binary, int2"),
        ("quest-2025", {"w_format": "hello"}, "no constants for w_format='hello'"),
        ("quest-2025", {"w_format": ["int4", "int7"]}, "int7"),
        ("qid-2024-per-format", {"post_bits": 4}, "needs post_format"),
        ("sun-2025", {"w_exponent": 4, "w_mantissa": 3}, "needs w_group"),
        ("sun-2025", {"w_exponent": 4, "w_group": 64}, "needs w_mantissa"),
        ("sun-2025", {"w_group": 64}, "needs w_exponent"),
        ("chen-2025-w4a4", {"w_format": "int4"}, "needs w_group"),
    ],
)
def test_what_is_not_told_is_asked_for(name, given, words):
    p = published(name)
    with pytest.raises(ConfigError, match=words):
        p.law.predict(p.values, **AT, **given)
    full = p.law.predict(p.values, **AT)
    for neutral in ("bf16", "fp16", "fp32", None):
        for column, _ in p.law.spec.labels:
            assert p.law.predict(p.values, **AT, **{column: neutral}) == full


def test_bits_without_a_label_are_not_enough_for_a_law_of_labels():
    law = chinchilla.with_precision(w="efficiency").with_gap("qid").for_labels({"w_format": ["int4"]})
    values = {p.name: p.start[1] for p in law.parameters}
    with pytest.raises(ConfigError, match="needs w_format"):
        law.predict(values, **AT, w_bits=4)
    law.predict(values, **AT, w_bits=4, w_format="int4")


def test_more_distinct_tokens_than_tokens_are_refused():
    p = published("muennighoff-2023")
    with pytest.raises(LawError, match="unique_tokens may not exceed tokens"):
        p.law.predict(p.values, params=1e9, tokens=1e9, unique_tokens=2e9)
    p.law.predict(p.values, params=1e9, tokens=1e9, unique_tokens=1e9)


@pytest.mark.parametrize(
    ("name", "question", "words"),
    [
        ("quest-2025", {"budget": 1e21, "bits": "int5"}, "quest-2025 has no constants for w_format int5"),
        (
            "chen-2025-w4a4",
            {"budget": 1e21, "bits": "int4"},
            "reads w_group, which int4 does not tell; name a format that does, like 'int4 group128'",
        ),
        (
            "sun-2025",
            {"budget": 1e21, "bits": "int4"},
            "reads w_exponent, which int4 does not tell; name a format that does, like 'e4m3 group128'",
        ),
        ("qid-2024-per-format", {"params": "1B", "quantize_to": "int5"}, "no constants for post_format int5"),
    ],
)
def test_plans_refuse_what_a_law_cannot_know(name, question, words):
    with pytest.raises(ConfigError, match=words):
        plan(name, **question)


def test_plans_read_labels_of_formats():
    p = published("quest-2025")
    low = plan("quest-2025", budget=1e21, bits="int4")
    at = {"params": low["params"].value, "tokens": low["tokens"].value}
    assert low["loss"].value == pytest.approx(
        float(p.law.predict(p.values, **at, w_format="int4")), rel=1e-12
    )
    full = plan("quest-2025", budget=1e21)
    assert any("has constants for binary" in note for note in full.notes)
    gap = plan("qid-2024-per-format", params=1e9, quantize_to="int4")
    assert 1e10 < gap["tokens"].value < 1e13
    assert gap["gap"].value > 0.01
    assert any("lose nothing" in note for note in plan("chinchilla-2024", budget=1e21, bits="int4").notes)


# ---- what is said


def test_floors_are_terms_by_themselves():
    assert (kumar.floors, outer.floors, saturating.floors, LAWS["kaplan"].floors) == (
        ("E",),
        ("E",),
        ("L_inf",),
        (),
    )
    assert LAWS["trajectory"].floors == LAWS["gadre-error"].floors == ()
    assert own("E * N**-alpha + A + B * D**-beta").floors == ("A",)
    assert own("E + A * N**-alpha * E + B * D**-beta").floors == ()


@pytest.mark.parametrize("name", LAWS)
def test_every_law_is_typeset_and_written_as_javascript(name):
    for expression in LAWS[name].display().values():
        assert sp.latex(expression)
        # JavaScript has no erfinv, so that a page would bring its own
        assert sp.jscode(expression, user_functions={"erfinv": "erfinv"})


def test_own_functions_are_typeset_and_written_as_javascript():
    names = {n: sp.Symbol(n) for n in ("x", "y", "w")}
    text = "exp(x) + log(x) + log2(x)**2 + sqrt(x) + tanh(x) + max(x, y) + ((x + y)**x)**2 + quantized(w) * x"
    made = read_expression(text, names, {"w"})
    assert r"\left(x + y\right)^{x}" in sp.latex(made)
    code = sp.jscode(made)
    for piece in (
        "Math.log2(x)",
        "Math.sqrt(x)",
        "Math.pow(x + y, x)",
        "w < 500000.0 ? 1 : 0",
        "Math.max(x, y)",
    ):
        assert piece in code
    assert "Not supported" not in code


def test_conditions_name_their_own_letters():
    plain = LAWS["kumar-without-offset"].conditions
    assert not any("n_w" in c.sentence for c in plain)
    untied = LAWS["effective-both-untied"]
    assert any("gamma_w_D * n_w_D" in c.sentence for c in untied.conditions)
    meanings = [p.meaning for p in untied.parameters]
    assert len(set(meanings)) == len(meanings)
    units = {p.name: p.unit for p in LAWS["multiplicative-power"].parameters}
    assert units["K_w"] == ""


def test_forms_are_stated_for_the_forward_pass():
    for form in ("kumar", "effective-data", "additive-power", "capacity"):
        assert "only" in compatible("chinchilla", {"grad": form})
        assert not compatible("chinchilla", {"emb": form})
    assert "gradients" in compatible("outer", {"w": "efficiency", "grad": "efficiency"}, "kumar-unified-n")
    with pytest.raises(ConfigError, match="there is no base law"):
        compatible("gadre-eror")


def test_sources_are_the_papers_own():
    assert "eq. 4 with the offsets of appendix K, and eq. 2" in str(kumar.source)
    assert "from memory" in str(saturating.source)
    assert "26" not in LAWS["floating-point"].source.where
    assert all("as qid" not in p.regime for p in PUBLISHED.values())


def test_names_are_found_in_any_case_and_among_laws_and_constants():
    assert get("Kumar") is kumar
    assert published("KUMAR-2024") is published("kumar-2024")
    with pytest.raises(ConfigError, match="did you mean 'kumar-2024'"):
        get("Kumar-2042")
    with pytest.raises(ConfigError, match="names published constants"):
        get("kumar-2024")
    with pytest.raises(ConfigError, match="without constants"):
        published("kumar")
    for name in ("kumar-2024", "none", "Chinchilla"):
        with pytest.raises(ConfigError, match="law of bitlaw itself"):
            law_from_data(data(CHINCHILLA, name=name))


@pytest.mark.parametrize("labels", [{"w_format": "int4"}, {"w_format": ["int4", "int4"]}, {"w_format": [4]}])
def test_labels_of_a_description_are_a_list_of_text(labels):
    with pytest.raises(ConfigError, match="label"):
        from_spec(chinchilla.with_precision(w="efficiency").spec.as_json() | {"labels": labels})


K = published("kaplan-2020-trajectory").values
SUN = published("sun-2025").values


@pytest.mark.parametrize(
    "ask",
    [
        lambda: kumar.predict(published("kumar-2024").values, params="8B", tokens=1e9),
        lambda: chinchilla.predict(
            published("chinchilla-2024").values, params=[1e9, 2e9], tokens=[1.0, 2.0, 3.0]
        ),
        lambda: chinchilla.predict(np.ones(3), **AT),
        lambda: chinchilla.predict([1, 2, 3, 4, 5], **AT),
        lambda: chinchilla.predict(dict.fromkeys(["E", "A", "B", "alpha", "beta"], "x"), **AT),
        lambda: get(None),
        lambda: published(None),
        lambda: chain(published("gadre-2024-c4-error"), chinchilla),
        lambda: rules.qat_fraction(1e9, -1e11, 4),
        lambda: rules.qat_fraction(1e9, 1e11, 0),
        lambda: rules.qat_fraction("1B", 1e11, 4),
        lambda: trajectory.least_steps(2.5, -1e9, K),
        lambda: trajectory.steps_to(2.5, 1e9, 0, K),
        lambda: trajectory.critical_batch(2.5, {}),
        lambda: floating.best_bits(-1e11, 128, SUN),
        lambda: floating.critical_tokens(1e9, -4, 3, 128, SUN),
        lambda: floating.best_layout(8, published("kumar-2024").values),
        lambda: downstream.bits_per_byte(-1, 4),
    ],
)
def test_public_functions_refuse_with_a_sentence(ask):
    with pytest.raises(ConfigError) as caught:
        ask()
    assert "\n" not in str(caught.value)


# ---- embeddings, floats, sparsity


def test_embeddings_are_a_part_that_can_be_fitted():
    law = chinchilla.with_precision(w="kumar", emb="kumar")
    truth = dict(published("chinchilla-2024").values, gamma_w=2.0, n_w=0.3, gamma_emb=1.5, n_emb=0.4)
    rows = []
    for n, d in [(n, d) for n in (1e7, 5e7, 2e8) for d in (5e8, 4e9, 3e10)]:
        for part in ("w", "emb"):
            for bits in (3, 4, 6, None):
                seen = {} if bits is None else {f"{part}_bits": bits}
                loss = float(law.predict(truth, params=n, tokens=d, **seen))
                rows.append(
                    {"params": n, "tokens": d, "loss": loss}
                    | ({f"{part}_format": f"int{bits}"} if bits else {})
                )
    fit = bl.fit(law, Runs.from_rows(rows), draws=0)
    assert fit.rows["loss"] == len(rows)
    assert {name: fit.values[name] for name in truth} == pytest.approx(truth, rel=1e-6)


def test_published_floats_and_fp4():
    p = published("kumar-2024-float")
    loss = float(p.law.predict(p.values, params=110e6, tokens=13e9, w_bits=4))
    size = 110e6 * (1 - np.exp(-4 / 2.8111 + 0.1240))
    assert loss == pytest.approx(2.7648 + 4299 * size**-0.4965 + 18060 * 13e9**-0.4965, rel=1e-12)
    q = published("quartet-2025-mxfp4")
    both = q.law.predict(q.values, **AT, w_format="mxfp4", grad_format="mxfp4")
    assert both == pytest.approx(
        float(outer.predict(published("quartet-2025").values, params=0.65e9, tokens=0.95e11))
    )


def test_sparse_and_quantised_weights_multiply():
    law, x = LAWS["capacity-sparse"], 3.0
    values = dict(published("chinchilla-2024").values, F=0.41, C=1.39, Lm=0.9)

    def share(**inputs):
        return float(
            law.compiled.n_eff(law.vector(values), law.arrange({"params": 1.0, "tokens": 1.0, **inputs}))
        )

    draws = np.abs(np.random.default_rng(0).standard_normal(400_000))
    lost = float((draws**2 * (draws < np.median(draws))).mean())
    half = np.tanh(0.41 * np.log(lost) / np.log(0.25)) ** 1.39
    assert share() == share(w_sparsity=0) == 1
    assert share(w_sparsity=0.5) == pytest.approx(half, rel=5e-3)
    quantised = 0.9 * np.tanh(0.41 * x) ** 1.39
    assert share(w_capacity=x) == pytest.approx(quantised)
    assert share(w_capacity=x, w_sparsity=0.5) == pytest.approx(quantised * half, rel=5e-3)
    with pytest.raises(LawError, match="between 0 and 1"):
        law.predict(values, **AT, w_sparsity=1.5)
    assert "w_sparsity" in {c.name for c in COLUMNS}


# ---- the command line


def shown(*words):
    out = CliRunner().invoke(app, ["laws", *words])
    assert out.exit_code == 0, out.exception
    return out.stdout


@pytest.mark.parametrize("name", [*LAWS, *PUBLISHED])
def test_laws_are_shown_within_the_page(name):
    text = shown("show", name)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "w_format=" not in text
    plain = json.loads(shown("show", name, "--json"))
    assert {"bounds", "units", "fixed", "regime", "fitted", "target", "conditions"} <= set(plain)


def test_what_laws_show_says(tmp_path):
    text = shown("show", "quest-2025")
    for words in (
        "w_format",
        "N*eff_w",
        "0.0001 to 20",
        "nats/token",
        "Fitted range of params",
        "Predicts loss",
    ):
        assert words in text
    assert "held at 0.051" in shown("show", "data-constrained")
    assert "A is not published" in shown("show", "task-accuracy")
    (tmp_path / "file.toml").write_text(CHINCHILLA)
    assert shown("show", str(tmp_path / "file.toml")).startswith("my-chinchilla:")


def test_what_laws_list_says():
    text = shown("list")
    planned, rest = text.split("of which no plan can be made")
    assert "gadre-2024-c4-error" in rest
    assert "gadre-2024-c4-error" not in planned
    assert "bitlaw.laws.rules.qat_fraction" in rest
    plain = json.loads(shown("list", "--json"))
    for name in plain["planned"]:
        plan(name, budget=1e20)
    for name in plain["planned_by_loss"]:
        plan(name, params=1e9, loss=2.5)
    assert len(plain["rules"]) == len(BESIDE)
    assert {x.law for x in INCOMPLETE} <= set(LAWS)


def test_sparse_rows_are_fitted_by_the_law_that_reads_them_and_left_out_by_others():
    law = LAWS["capacity-sparse"]
    truth = dict(published("chinchilla-2024").values, F=0.41, C=1.39, Lm=1.0)
    rows = []
    for n in (1e7, 4e7, 1.6e8, 6.4e8):
        for d in (1e9, 4e9, 1.6e10, 6.4e10):
            for sparsity in (0.0, 0.5, 0.75):
                loss = float(law.predict(truth, params=n, tokens=d, w_sparsity=sparsity))
                rows.append({"params": n, "tokens": d, "loss": loss, "w_sparsity": sparsity})
    fit = bl.fit(law, Runs.from_rows(rows), draws=0)
    assert (fit.values["F"], fit.values["C"]) == pytest.approx((0.41, 1.39), rel=1e-5)
    plain = bl.fit("chinchilla", Runs.from_rows(rows), draws=0)
    assert plain.rows["loss"] == 16 and any("32 rows with sparse weights" in note for note in plain.notes)
