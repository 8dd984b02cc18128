"""The planner panel: what the browser computes is what `bitlaw plan` answers."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from test_javascript import node
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw.cli.main import app
from bitlaw.errors import ConfigError
from bitlaw.laws import published
from bitlaw.laws.javascript import javascript
from bitlaw.report.panel import panel_data

ASSETS = files("bitlaw.report") / "assets"
PLANNER = "".join((ASSETS / name).read_text() for name in ("numbers.js", "planner.js"))
RUN = (
    PLANNER
    + """
const { data, source, states } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const planner = bitlaw.planner(data, (0, eval)(source)(bitlaw.runtime));
console.log(JSON.stringify(states.map((state) => {
  const { point, best, outside } = planner.answer(state);
  return { point, best, outside, command: planner.command(state) };
})));
"""
)


@pytest.fixture(scope="module")
def fitted(sweep, tmp_path_factory):
    fit = bl.fit("kumar", sweep, draws=60)
    path = tmp_path_factory.mktemp("fit") / "fit.json"
    fit.save(path)
    return fit, path


def state(data, budget=1e21, params=None, served=0, **names):
    """A state of the panel, its formats by name; those not named are unquantised."""
    formats = {}
    for control in data["controls"]:
        known = [option["name"] for option in control["options"]]
        plain = {"post": "none", "all": "bf16"}.get(control["part"], "")
        formats[control["part"]] = known.index(names.pop(control["part"], plain))
    assert not names
    return {"budget": budget, "params": params, "served": served, "formats": formats}


def answers(law, data, states):
    return node(RUN, {"data": data, "source": javascript(law.law), "states": states})


def asked(command):
    """What the command line answers."""
    words = shlex.split(command)
    assert words[:2] == ["bitlaw", "plan"]
    out = CliRunner().invoke(app, [*words[1:], "--json"])
    assert out.exit_code == 0, out.exception
    return {a["name"]: a for a in json.loads(out.output)["answers"]}


def agree(found, params_given, tolerance=2e-5):
    said, point = asked(found["command"]), found["point"]
    assert point["loss"] == pytest.approx(said["loss"]["value"], rel=1e-10)
    if params_given:
        tolerance = 1e-9 if point["tokens"] == point["bought"] else tolerance
    for name in ("params", "tokens"):
        assert point[name] == pytest.approx(said[name]["value"], rel=tolerance)
    if not params_given:
        ends = [said["params"]["near_low"], said["params"]["near_high"]]
        assert found["best"]["near"] == pytest.approx(ends, rel=1e-4)
    if "gap" in said:
        assert point["gap"] == pytest.approx(said["gap"]["value"], rel=1e-4)


STATES = [
    {"budget": 3.3e19, "w": "w6", "a": "a8", "kv": "kv6"},
    {"budget": 1e20, "params": 30e6, "post": "int3"},
    pytest.param({}, marks=pytest.mark.slow),
    pytest.param({"params": 1.23e9, "w": "w4"}, marks=pytest.mark.slow),
    pytest.param({"budget": 1e20, "served": 1e11, "post": "int4"}, marks=pytest.mark.slow),
    pytest.param({"budget": 1e23, "served": 1e13}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("given", STATES)
def test_what_the_panel_says_of_a_fit_is_what_the_command_says(fitted, given):
    fit, path = fitted
    data = panel_data(fit, command=["bitlaw", "plan", "--fit", str(path)])
    (found,) = answers(fit, data, [state(data, **given)])
    agree(found, "params" in given)
    if given.get("post") == "int3":
        assert found["point"]["tokens"] < 0.5 * found["point"]["bought"]  # more of them would hurt


def test_intervals_bytes_and_extrapolation_are_those_of_the_fit(fitted):
    fit, _ = fitted
    data = panel_data(fit, command=["bitlaw", "plan"])
    low, post = {"budget": 3.3e19, "w": "w6", "a": "a8", "kv": "kv6"}, {"budget": 1e20, "post": "int4"}
    found = answers(fit, data, [state(data), state(data, **low), state(data, **post)])
    point, bits = found[1]["point"], {"w_bits": 6, "a_bits": 8, "kv_bits": 6}
    at = {"params": point["params"], "tokens": point["tokens"], **bits}
    assert point["loss"] == pytest.approx(float(fit.predict(**at)), rel=1e-13)
    assert point["lossInterval"] == pytest.approx([float(x) for x in fit.band(**at)], rel=1e-12)
    at = {"params": found[2]["point"]["params"], "tokens": found[2]["point"]["tokens"], "post_bits": 4}
    assert found[2]["point"]["gapInterval"] == pytest.approx(
        [float(x) for x in fit.band("gap", **at)], rel=1e-12
    )
    assert found[0]["point"]["bytes"] == 2 * found[0]["point"]["params"]
    assert "times above the largest" in " ".join(found[0]["point"]["beyond"])


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("chinchilla-2024", [{"served": 1e12}]),
        ("kumar-2024", [{"w": "w5"}]),
        ("quest-2025", [{"all": "int4"}]),
        pytest.param("sun-2025", [{"all": "e4m3 group128"}, {"all": "bf16"}], marks=pytest.mark.slow),
        pytest.param("muennighoff-2023", [{"budget": 1e20, "params": 1e9}], marks=pytest.mark.slow),
        pytest.param("chen-2025-w4a4", [{"all": "int4 group128"}], marks=pytest.mark.slow),
        pytest.param("qid-2024", [{"post": "int3", "params": 1e9}], marks=pytest.mark.slow),
        pytest.param("qid-2024-per-format", [{"post": "int4"}], marks=pytest.mark.slow),
    ],
)
def test_what_the_panel_says_of_published_constants(name, chosen):
    law = published(name)
    data = panel_data(law, command=["bitlaw", "plan", "--law", name])
    for one, given in zip(
        answers(law, data, states := [state(data, **c) for c in chosen]), states, strict=True
    ):
        assert one["point"]["lossInterval"] is None
        agree(one, given["params"] is not None)


def test_where_the_law_says_nothing_the_panel_says_why(fitted):
    fit, path = fitted
    data = panel_data(fit, command=["bitlaw", "plan"])
    found = answers(
        fit, data, [state(data, w="w4", post="int3"), state(data, a="a2"), state(data, budget=1.0)]
    )
    assert "trained unquantised" in found[0]["outside"]
    assert "too few bits" in found[1]["outside"]
    assert "leave no room" in found[2]["outside"]
    assert all(one["point"] is None for one in found)


def test_the_command_asks_for_intervals_of_the_level_that_is_shown(fitted):
    fit, _ = fitted
    for level, flags in ((0.9, []), (0.95, ["--interval", "0.95"])):
        data = panel_data(replace(fit, level=level), command=["bitlaw", "plan"])
        (found,) = answers(fit, data, [state(data)])
        assert shlex.split(found["command"])[-2:] == (flags or ["--bits", "bf16"])


def test_draws_are_whole_numbers_of_the_fit(fitted):
    fit, _ = fitted
    data = panel_data(fit, command=["bitlaw", "plan"])
    code = 'const text = JSON.parse(require("fs").readFileSync(0));'
    code += "console.log(JSON.stringify(Array.from(atob(text), (c) => c.charCodeAt(0))));"
    sent = np.frombuffer(bytes(node(code, data["draws"])), dtype="<f8").reshape(-1, len(fit.estimates))
    np.testing.assert_array_equal(sent, fit.draws)


def test_a_law_of_something_else_has_no_panel():
    with pytest.raises(ConfigError, match="has no panel"):
        panel_data(published("gadre-2024-c4-error"), command=[])
