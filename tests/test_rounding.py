"""Formats exact to the bit: against tables made another way, and against the casts of three libraries."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from bitlaw import ConfigError, parse_format
from bitlaw.formats import FAMILIES, KUMAR_FLOATS, NAMED, Float, Microscaled, Native, Recipe, Uniform
from bitlaw.formats.gaussian import relative_error
from bitlaw.formats.packing import pack, unpack
from bitlaw.lab.precision import quantize
from bitlaw.lab.precision.rotation import rotate
from bitlaw.lab.precision.rounding import round_values

SMALL = [f"e{e}m{m}" for e in range(1, 8) for m in range(8 - e) if (e, m) != (1, 0)]
CASTS = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
}
GRIDS = [
    parse_format(n)
    for n in (*SMALL, "e5m6", "int2", "int3", "int4", "int8", "midrise1", "midrise4", "ternary", "nf4")
]


def bits_of(x):
    return torch.as_tensor(x, dtype=torch.float32).contiguous().view(torch.int32)


def half_floats(dtype):
    """All 65,536 values of a 16-bit float that are finite."""
    x = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype).float()
    return x[x.isfinite()]


def around(values):
    """Values, the middles between them, and the nearest neighbours of both, of either sign."""
    values = np.asarray(values, dtype=np.float32)
    x = np.concatenate([values, (values[1:].astype(np.float64) + values[:-1]).astype(np.float32) / 2])
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, -np.float32(np.inf))])
    beyond = np.float32([values[-1] * 1.2, values[-1] * 2, 1e30, 1e-30, 1e-40, 0.0])
    return torch.from_numpy(np.concatenate([x, -x, beyond, -beyond]))


# ---- values


@pytest.mark.parametrize("name", SMALL)
def test_every_value_of_a_small_float_by_exact_arithmetic(name):
    """From the definition in IEEE 754, in fractions: no power, shift or table is shared with the code."""
    e_bits, m_bits = int(name[1]), int(name[3])
    bias, found = 2 ** (e_bits - 1) - 1, set()
    for code in range(2 ** (1 + e_bits + m_bits)):
        sign, rest = divmod(code, 2 ** (e_bits + m_bits))
        e, m = divmod(rest, 2**m_bits)
        if name == "e5m2" and e == 31 or name == "e4m3" and (e, m) == (15, 7):
            continue  # infinities and NaNs
        part = Fraction(m, 2**m_bits)
        size = Fraction(2) ** (1 - bias) * part if e == 0 else Fraction(2) ** (e - bias) * (1 + part)
        found.add(-size if sign else size)
    assert [Fraction(v) for v in parse_format(name).values().tolist()] == sorted(found)


@pytest.mark.parametrize("name", CASTS)
def test_every_value_against_ml_dtypes(name):
    codes = np.arange(2 ** int(parse_format(name).bits), dtype=np.uint8).view(CASTS[name]).astype(np.float64)
    assert parse_format(name).values().tolist() == sorted(set(codes[np.isfinite(codes)].tolist()))


@pytest.mark.parametrize("bits", range(1, 17))
def test_integer_grids(bits):
    unsigned, midrise = parse_format(f"uint{bits}").values(), parse_format(f"midrise{bits}").values()
    assert unsigned.tolist() == list(range(2**bits))
    assert midrise.tolist() == [k - (2**bits - 1) / 2 for k in range(2**bits)]
    if bits > 1:
        assert parse_format(f"int{bits}").values().tolist() == list(
            range(-(2 ** (bits - 1)), 2 ** (bits - 1))
        )


def test_the_papers_floats():
    """Appendix D.2 prints E4M1 for five bits, which with its sign has six."""
    for bits, name in KUMAR_FLOATS.items():
        assert parse_format(name).bits == bits


def test_one_bit_with_a_symmetric_scale_is_refused_with_its_reason():
    with pytest.raises(ConfigError, match="no scale maps the largest magnitude to 0"):
        parse_format("int1")


@pytest.mark.parametrize(
    "name", ["e0m3", "e9m1", "e8m7", "e1m0", "e5m11", "int17", "uint0", "mxfp5", "nvfp8", "int4 "]
)
def test_what_is_no_format_is_refused(name):
    if name.strip() in ("int4",):
        assert parse_format(name).name == "int4"
        return
    with pytest.raises(ConfigError):
        parse_format(name)


# ---- casts


@pytest.mark.parametrize("name", CASTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_sixteen_bit_floats_are_cast_as_ml_dtypes_casts_them(name, dtype):
    x = half_floats(dtype)
    peak = parse_format(name).peak
    theirs = x.clamp(-peak, peak).numpy().astype(CASTS[name]).astype(np.float32)
    assert torch.equal(bits_of(round_values(x, parse_format(name))), bits_of(theirs))


@pytest.mark.parametrize("name", CASTS)
def test_ties_neighbours_and_ends_are_cast_as_ml_dtypes_casts_them(name):
    x = around(parse_format(name).values())
    peak = parse_format(name).peak
    theirs = x.clamp(-peak, peak).numpy().astype(CASTS[name]).astype(np.float32)
    assert torch.equal(bits_of(round_values(x, parse_format(name))), bits_of(theirs))


@pytest.mark.parametrize(("name", "dtype"), [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_eight_bit_floats_are_cast_as_torch_casts_them(name, dtype):
    peak = parse_format(name).peak
    for x in (half_floats(torch.float16), half_floats(torch.bfloat16), around(parse_format(name).values())):
        theirs = x.clamp(-peak, peak).to(dtype).float()
        assert torch.equal(bits_of(round_values(x, parse_format(name))), bits_of(theirs))


def blocks(block):
    """Blocks of many sizes, with ties, zeros, outliers and whole blocks of zeros."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8 * block, generator=generator) * torch.logspace(-12, 12, 64)[:, None]
    x[3] = 0
    x[4, :block] = 0
    x[5] = (x[5] / x[5].abs().max() * 16).round() / 4
    x[6, ::block] *= 1e4
    x[7] = half_floats(torch.bfloat16)[8000 : 8000 + 8 * block]
    return x


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4"])
def test_blocks_of_32_are_cast_as_torchao_casts_them(name):
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor", reason="needs torchao")
    constants = pytest.importorskip("torchao.prototype.mx_formats.constants")
    element = {
        "mxfp8_e4m3": torch.float8_e4m3fn,
        "mxfp8_e5m2": torch.float8_e5m2,
        "mxfp6_e2m3": constants.DTYPE_FP6_E2M3,
        "mxfp6_e3m2": constants.DTYPE_FP6_E3M2,
        "mxfp4": torch.float4_e2m1fn_x2,
    }[name]
    x = blocks(32)
    scale, data = mx.to_mx(x, element, 32)
    theirs = mx.to_dtype(data, scale, element, 32, torch.float32)
    assert torch.equal(quantize(x, Recipe.parse(name)), theirs)


def test_blocks_of_16_with_two_scales_are_cast_as_torchao_casts_them():
    nv = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor", reason="needs torchao")
    for x in (blocks(16)[20:44], torch.randn(40, 160, generator=torch.Generator().manual_seed(1))):
        whole = nv.per_tensor_amax_to_scale(x.abs().max())
        theirs = nv.NVFP4Tensor.to_nvfp4(x, per_tensor_scale=whole).dequantize(torch.float32)
        assert torch.equal(quantize(x, Recipe.parse("nvfp4")), theirs)


def test_mxint8_by_its_definition():
    """OCP MX 1.0: eight-bit integers with an implied scale of 2^-6, of which -2 is not reached."""
    x = blocks(32).double()
    split = x.unflatten(-1, (-1, 32))
    peak = split.abs().amax(-1, keepdim=True).numpy()
    with np.errstate(divide="ignore"):
        scale = 2.0 ** np.maximum(np.floor(np.log2(peak)), -127)
    q = np.clip(np.rint(split.numpy() / scale * 64), -128, 127)
    assert np.array_equal(
        quantize(x.float(), Recipe.parse("mxint8")).numpy(), (q / 64 * scale).reshape(x.shape)
    )


# ---- rounding laws


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.name)
def test_at_a_fixed_scale_rounding_is_idempotent_monotone_and_within_half_a_step(grid):
    values = torch.tensor(grid.values(), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    inside = values[0] + (values[-1] - values[0]) * torch.rand(20_000, generator=generator)
    x = torch.cat([inside, inside * (inside / values[-1]) ** 2, around(grid.values())]).sort().values
    q = round_values(x, grid)
    assert torch.equal(round_values(q, grid), q)
    assert (q.diff() >= 0).all()
    assert torch.isin(q, values).all()
    held = (x >= values[0]) & (x <= values[-1])
    nearest = (x[held, None].double() - values.double()).abs().min(-1).values if len(values) < 300 else None
    if nearest is not None:
        off = (q[held].double() - x[held].double()).abs() - nearest
        assert off.abs().max() <= (6e-8 if grid.name == "nf4" else 0.0)  # its middles are no floats


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.name)
def test_stochastic_rounding_has_the_right_mean_and_takes_neighbours_only(grid):
    values = torch.tensor(grid.values(), dtype=torch.float32)
    draw = torch.Generator().manual_seed(1)
    x = values[0] + (values[-1] - values[0]) * torch.rand(200, generator=draw)
    x = torch.cat([x, x * (x / values[-1]) ** 2])
    many = torch.stack([round_values(x, grid, draw) for _ in range(2000)]).double()
    above = torch.bucketize(x, values).clamp(1, len(values) - 1)
    low, high = values[above - 1].double(), values[above].double()
    assert ((many == low) | (many == high)).all()
    share = (x.double() - low) / (high - low)
    error = (many.mean(0) - x) / ((high - low) * (share * (1 - share) / 2000).sqrt()).clamp_min(1e-30)
    error = error[(share > 0.01) & (share < 0.99)]
    assert error.abs().max() < 5
    assert abs(error.mean()) < 5 / math.sqrt(len(error))


@pytest.mark.parametrize("name", ["int8", "int16", "e5m6", "nf4"])
def test_chance_does_not_move_what_lies_on_the_grid(name):
    """Ten million draws: v + draw, rounded to a float, would be the next integer for some."""
    fmt = parse_format(name)
    x = torch.tensor(fmt.values(), dtype=torch.float32)[-2].expand(10_000_000)
    assert torch.equal(round_values(x, fmt, torch.Generator().manual_seed(0)), x)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(
        [
            "int4",
            "uint4 channel",
            "e4m3 token",
            "int3 group16",
            "int3 block8 mse",
            "nvfp4",
            "mxfp6_e2m3",
            "midrise3 gaussian",
        ]
    ),
    st.integers(1, 40),
    st.integers(1, 70),
    st.integers(-30, 30),
)
def test_a_power_of_two_of_everything_rounds_to_a_power_of_two_of_everything(text, rows, columns, power):
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows * 100 + columns))
    recipe = Recipe.parse(text)
    assert torch.equal(quantize(x * 2.0**power, recipe), quantize(x, recipe) * 2.0**power)


def test_the_error_minimising_scale_is_never_worse():
    x = torch.randn(40, 128, generator=torch.Generator().manual_seed(0)) ** 3
    for fmt in ("int3", "uint3", "e2m1"):
        plain, best = (quantize(x, Recipe.parse(f"{fmt} group32 {scale}")) for scale in ("absmax", "mse"))
        assert ((best - x).square().sum(-1) <= (plain - x).square().sum(-1) + 1e-6).all()
        assert (best - x).square().mean() < 0.95 * (plain - x).square().mean()


def test_a_rotation_keeps_inner_products_and_spreads_outliers():
    x, y = torch.randn(2, 30, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(rotate(x) @ rotate(y).T, x @ y.T)
    assert torch.allclose(rotate(rotate(x), back=True), x)
    x[:, 5] *= 30
    error = {
        turn: (quantize(x, Recipe.parse(f"int4 token{turn}")) - x).square().mean() for turn in ("", " rotate")
    }
    assert error[" rotate"] < 0.5 * error[""]
    with pytest.raises(ConfigError, match="cannot be rotated"):
        rotate(torch.randn(2, 7))


# ---- scales and bytes


def test_ternary_and_binary_are_those_of_bitnet():
    w = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    mean = w.abs().mean()
    assert torch.allclose(
        quantize(w, Recipe.parse("ternary")), (w / mean).round().clamp(-1, 1) * mean, atol=1e-6
    )
    assert torch.allclose(quantize(w, Recipe.parse("binary")), w.sign() * mean, atol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "int3 channel",
        "uint4 group16",
        "ternary",
        "binary channel",
        "e3m2 channel",
        "int5 block16",
        "mxfp4",
        "nvfp4",
        "mxfp6_e3m2",
    ],
)
def test_bits_per_weight_are_those_of_really_packed_bytes(text):
    recipe = Recipe.parse(text)
    fmt, shape = recipe.format, (24, 80)
    places = np.random.default_rng(0).integers(len(np.atleast_1d(fmt.values())), size=shape)
    packed = pack(places, fmt)
    assert np.array_equal(unpack(packed, fmt, places.size), places.ravel())
    if isinstance(fmt, Microscaled):
        scales = np.zeros(24 * math.ceil(80 / fmt.block), dtype=np.uint8).nbytes + (
            4 if fmt.name == "nvfp4" else 0
        )
    else:
        groups = {"channel": 24, "tensor": 1, "group": 24 * 5, "block": 2 * 5}[recipe.granularity]
        scales = np.zeros(groups, dtype=np.float16).nbytes
        if isinstance(fmt, Uniform) and fmt.shifted:
            scales += pack(np.zeros(groups, dtype=int), fmt).nbytes
    assert recipe.stored_bytes(shape) == packed.nbytes + scales
    assert recipe.bits_per_weight(shape) == 8 * (packed.nbytes + scales) / (24 * 80)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 7, 8, 11, 16])
def test_what_is_packed_comes_out_again(bits):
    fmt = parse_format(f"uint{bits}")
    places = np.random.default_rng(bits).integers(2**bits, size=1001)
    packed = pack(places, fmt)
    assert packed.nbytes == math.ceil(1001 * bits / 8)
    assert np.array_equal(unpack(packed, fmt, 1001), places)


@pytest.mark.parametrize(
    "name", ["e4m3", "e2m1", "mxfp4", "mxint8", "nvfp4", "nf4", "midrise3", "mxfp8_e5m2"]
)
def test_gaussian_errors_against_a_million_numbers(name):
    x = torch.randn(1, 2**20, generator=torch.Generator().manual_seed(0))
    fmt = parse_format(name)
    if isinstance(fmt, Microscaled):
        q = quantize(x, Recipe.parse(name)) if name != "nvfp4" else None
        if q is None:  # its error is stated for a tensor scale of one
            x[0, 0] = 448.0 * 6
            q = quantize(x, Recipe.parse(name))
            x, q = x[:, 16:], q[:, 16:]
    else:
        q = quantize(x, Recipe.parse(f"{name} gaussian"))
    assert ((q - x) ** 2).mean().item() == pytest.approx(relative_error(fmt), rel=0.01)


def test_nf4_is_of_the_quantiles_of_its_paper():
    """Dettmers et al. 2023: equally likely cells of N(0, 1) on either side of zero, eight above and seven below."""
    outermost = (1 - 1 / 32 + 1 - 1 / 30) / 2
    above, below = (norm.ppf(np.linspace(outermost, 0.5, n)[:-1]) for n in (9, 8))
    expected = np.sort(np.concatenate([above, [0.0], -below])) / above[0]
    assert parse_format("nf4").values() == pytest.approx(expected, abs=1e-6)


def test_scales_of_least_error_reach_into_heavy_tails():
    """By a search over all scales, one tensor of Student's t with three degrees of freedom."""
    x = torch.from_numpy(np.random.default_rng(0).standard_t(3, (1, 2**17))).float()
    for name in ("int4", "e2m1", "int3"):
        found = (quantize(x, Recipe.parse(f"{name} tensor mse")) - x).square().mean()
        peaks = [x.abs().max() * share for share in np.geomspace(1, 3e-3, 300)]
        clipped = [quantize(x.clamp(-p, p), Recipe.parse(f"{name} tensor")) for p in peaks]
        least = min((q - x).square().mean() for q in clipped)
        assert found <= 1.03 * least, name


def test_tiny_tensors_round_to_nothing_rather_than_to_nan():
    q = quantize(torch.full((1, 16), 5e-36), Recipe.parse("nvfp4"))
    assert q.isfinite().all()


def test_what_is_cached_in_inference_can_be_trained_with():
    with torch.inference_mode():
        rotate(torch.ones(2, 1234))
    weight = torch.nn.Parameter(torch.randn(2, 1234))
    rotate(weight).square().sum().backward()
    assert weight.grad is not None


def test_the_list_of_formats_holds_together():
    for name, entry in NAMED.items():
        assert parse_format(name) is entry.format
        assert entry.status in ("stable", "experimental")
        if not isinstance(entry.format, Native):
            assert (np.diff(entry.format.values()) > 0).all()
    for family in FAMILIES:
        assert parse_format(family.example).name == family.example
    assert isinstance(parse_format("e2m1"), Float)


# ---- recipes


@pytest.mark.parametrize(
    "text",
    [
        "int4",
        "int4 channel",
        "int3 group64 mse",
        "e4m3 token stochastic",
        "nvfp4 rotate",
        "uint2 block16",
        "midrise4 gaussian",
        "ternary channel",
        "ternary channel absmax",
        "binary tensor absmax",
        "nf4 group64",
    ],
)
def test_recipes_survive_their_text(text):
    recipe = Recipe.parse(text)
    assert Recipe.parse(str(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unknown format"),
        ("fp8", "several formats; name one of e4m3, e5m2"),
        ("int4 chanel", "did you mean 'channel'"),
        ("int4 group", "group"),
        ("int4 group1", "2 to"),
        ("int4 tensor channel", "says again"),
        ("nvfp4 group16", "of its own"),
        ("mxfp4 mse", "of its own"),
        ("int4 absmean", "binary"),
        ("uint4 gaussian", "zero point"),
        ("int4 learned rotate", "learned steps round to nearest"),
        ("int4 learned stochastic", "learned steps round to nearest"),
        ("bf16 token", "leaves numbers as they are"),
    ],
)
def test_impossible_recipes_are_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        Recipe.parse(text)


@pytest.mark.parametrize("shared", ["group-1", "group0", "chanel"])
def test_what_numbers_do_not_share_a_scale_by_is_refused(shared):
    with pytest.raises(ConfigError, match="group"):
        Recipe.parse("int4", shared)
