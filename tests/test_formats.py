"""Units, formats, schemes and shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitlaw import ConfigError, Scheme, parse_format
from bitlaw.formats import Recipe
from bitlaw.shapes import Shape, ladder_shape
from bitlaw.units import format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("1e22", "flops", 1e22),
        ("1e22 FLOPs", "flops", 1e22),
        ("20M", "params", 2e7),
        ("20_000_000", "params", 2e7),
        ("20,000,000 tokens", "tokens", 2e7),
        ("1.5B tokens", "tokens", 1.5e9),
        ("8b", "bytes", None),
        ("16 MB", "bytes", 16e6),
        ("16 MiB", "bytes", 16 * 2**20),
        ("7G", "params", 7e9),
        (3, "params", 3.0),
    ],
)
def test_quantities(text, unit, value):
    if value is None:
        with pytest.raises(ConfigError):
            parse_quantity(text, unit)
    else:
        assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "-5", "0", "1e999", "5 apples", "٣", "1e22 tokens", True, None, "1__0"]
)
def test_what_is_not_a_quantity_is_refused(text):
    with pytest.raises(ConfigError, match="flops"):
        parse_quantity(text, "flops")


@given(st.floats(1.0, 1e14))
def test_quantities_survive_writing(value):
    assert parse_quantity(format_quantity(value), "params") == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize("bits", range(2, 17))
def test_integer_levels(bits):
    fmt = parse_format(f"int{bits}")
    levels = fmt.values()
    assert len(levels) == 2**bits
    assert (levels[0], levels[-1]) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert (np.diff(levels) == 1).all()


@pytest.mark.parametrize(
    "name", ["int0", "int1", "int17", "int99", "int-4", "fp8", "", "int4.5", 0, 99, True, None, "int99999999"]
)
def test_impossible_formats_are_refused(name):
    with pytest.raises(ConfigError):
        parse_format(name)


def test_bits_per_weight_count_the_scales():
    """64 outputs x 128 inputs: 64 scales of 16 bits, or one."""
    total = 64 * 128 * 4 + 64 * 16
    assert Recipe.parse("int4", "channel").bits_per_weight((64, 128)) == total / (64 * 128)
    assert Recipe.parse("int4").bits_per_weight((64, 128)) == 4 + 16 / (64 * 128)
    assert Recipe.parse("bf16").bits_per_weight((64, 128)) == 16


@pytest.mark.parametrize("name", ["16", "w4", "a8", "kv3", "w4a8kv6", "w2kv4"])
def test_schemes_survive_their_name(name):
    assert Scheme.parse(name).name == name


def test_sixteen_bits_of_a_part_are_none_as_the_field_writes_them():
    assert Scheme.parse("w4a16") == Scheme.parse("w4a16kv16") == Scheme.parse("w4")
    assert Scheme.parse("w16a16") == Scheme.parse("16")
    for nothing in ("w=fp32", "a=fp16, kv=bf16", "16"):
        assert not Scheme.parse(nothing).quantized and Scheme.parse(nothing).name == "16"
    assert Scheme.parse("a=int16").name == "a=int16" and Scheme.parse("a=int16").quantized


@pytest.mark.parametrize("name", ["", "w", "w4w3", "x4", "w4 a8", "w99", "w0", "4", "kv"])
def test_impossible_schemes_are_refused(name):
    with pytest.raises(ConfigError):
        Scheme.parse(name)


@settings(deadline=None)
@given(st.floats(4e3, 1e8))
def test_the_ladder_hits_its_target(params):
    shape = ladder_shape(params)
    assert shape.counts().non_embedding == pytest.approx(params, rel=0.04)
    assert shape.width == shape.heads * 16


def test_a_size_below_the_ladder_is_refused():
    for size in (0, -1, 100, float("nan")):
        with pytest.raises(ConfigError, match="ladder starts"):
            ladder_shape(size)


def test_flops_are_six_a_parameter_and_attention():
    shape = Shape(width=32, depth=1, heads=2, ffn=80)
    assert shape.flops_per_token(128) == 6 * shape.counts().matmul + 12 * 32 * 128
