"""Errors on tasks in plans: read off a curve at the loss, beside tokens a second, with the doubt of both fits."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import bitlaw as bl
from bitlaw.cli.main import app
from bitlaw.errors import ConfigError


@pytest.fixture(scope="module")
def errors():
    """A fit of errors by the loss, to rows with noise: 0.85 - 2 exp(-0.7 L)."""
    rng = np.random.default_rng(0)
    losses = np.linspace(1.9, 3.2, 20)
    rows = [
        {"id": str(k), "trunk": str(k), "params": 1e8 * (k + 1), "tokens": 1e10, "loss": loss,
         "error": 0.85 - 2 * np.exp(-0.7 * loss) + 0.002 * rng.standard_normal()}
        for k, loss in enumerate(losses)
    ]  # fmt: skip
    return bl.fit("gadre-error", bl.Runs.from_rows(rows))


def test_an_error_is_that_of_the_loss_and_each_option_has_its_own(errors):
    answer = bl.plan(
        "kumar-2024", params="1B", tokens="100B", quantize_to=["int8", "int4", "int3"], bits="bf16", context="8k",
        hardware="h100", errors=errors,
    )  # fmt: skip
    assert answer["error"].value == pytest.approx(float(errors.predict(loss=answer["loss"].value)), abs=1e-12)
    options = {o.formats: o for o in answer.options}
    assert len(options) == 3
    for option in options.values():
        assert option.error == pytest.approx(float(errors.predict(loss=option.loss)), abs=1e-12)
    fewer = sorted(answer.options, key=lambda o: o.bits)
    assert fewer[0].error > fewer[1].error > fewer[2].error
    assert fewer[0].tokens_per_second > fewer[1].tokens_per_second > fewer[2].tokens_per_second
    assert "tokens a second" in str(answer) and f"{fewer[0].error:.2%}" in str(answer)


def test_an_errors_interval_has_the_doubt_of_both_fits(sweep, errors):
    law = bl.fit("kumar", sweep)
    given = {"params": 1e8, "tokens": 5e9, "bits": "bf16"}
    both = bl.plan(law, **given, errors=errors)["error"]
    certain = replace(
        errors, draws=np.repeat(errors.law.vector(errors.values)[None], len(errors.draws), axis=0)
    )
    alone = bl.plan(law, **given, errors=certain)["error"]
    assert alone.value == both.value and both.low < alone.low < both.value < alone.high < both.high


def test_errors_beyond_their_rows_and_of_other_fits(sweep, errors):
    far = bl.plan("kumar-2024", params="10M", tokens="1B", bits="bf16", errors=errors)
    assert any(
        "beyond the rows of its curve, whose losses are from 1.900 to 3.200" in note for note in far.notes
    )
    with pytest.raises(ConfigError, match="errors is a fit of errors on tasks by the loss"):
        bl.plan("kumar-2024", params="1B", tokens="1B", errors=bl.fit("kumar", sweep))
    with pytest.raises(ConfigError, match="errors plays no part in the fewest safe bits"):
        bl.plan("kumar-2024", params="1B", tokens="1B", quantize_to="lowest", errors=errors)


def test_the_command_line_reads_a_saved_curve(tmp_path, errors):
    errors.save(tmp_path / "errors.json")
    asked = ["plan", "--law", "kumar-2024", "--params", "1B", "--tokens", "100B", "--bits", "bf16"]
    done = CliRunner().invoke(app, [*asked, "--errors", str(tmp_path / "errors.json"), "--json"])
    assert done.exit_code == 0, done.output
    (found,) = (a["value"] for a in json.loads(done.stdout)["answers"] if a["name"] == "error")
    given = {"params": "1B", "tokens": "100B", "bits": "bf16"}
    assert found == bl.plan("kumar-2024", **given, errors=errors)["error"].value


def test_a_line_below_zero_is_kept_and_read_again(tmp_path):
    """Its error at a loss of zero is negative, as a line's may be."""
    rows = [
        {"id": str(k), "trunk": str(k), "params": 1e8, "tokens": 1e10, "loss": 2 + k / 10,
         "error": -0.3 + 0.3 * (2 + k / 10) + 0.002 * (-1) ** k}
        for k in range(8)
    ]  # fmt: skip
    line = bl.fit("error-line", bl.Runs.from_rows(rows))
    assert line.values["Err_0"] < -0.25
    line.save(tmp_path / "line.json")
    assert bl.load_fit(tmp_path / "line.json").values == line.values
