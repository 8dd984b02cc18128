"""Hardware profiles, and what training and serving cost on them: identities, figures by hand, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner
from watch import watched

from bitlaw import ConfigError, DataError, Scheme, plan
from bitlaw.cli.main import app
from bitlaw.formats import parse_format
from bitlaw.laws import kumar
from bitlaw.planning.choice import chosen
from bitlaw.planning.cost import (
    Achieved,
    achieved_from,
    bit_flops,
    train_flops,
    train_seconds,
    train_work,
)
from bitlaw.planning.hardware import UNITS, hardware, profiles
from bitlaw.planning.machine import Machine
from bitlaw.planning.serve import Cache, artefact_bytes, serve, tokens_per_second
from bitlaw.runs import Runs
from bitlaw.shapes import ladder_shape

NAMES = list(profiles())
FP8 = "w=e4m3, a=e4m3, grad_a=e5m2"
OWN = """
[my-card]
label = "a card"
memory = 24e9
bandwidth = 1e12
source = "a page"
date = "2026-11"
price = 2
price_source = "a page"
price_date = "2026-11-27"
[my-card.peak]
bf16 = 100e12
int8 = 200e12
[[my-card.measured]]
formats = "int8"
over = "bf16"
what = "training"
factor = 1.3
source = "a page"
"""


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_every_profile_make_sense(name):
    found = profiles()[name]
    rates = found.peak.known()
    for narrow, wide in (
        ("fp4", "fp8"),
        ("int4", "int8"),
        ("fp8", "bf16"),
        ("int8", "bf16"),
        ("bf16", "tf32"),
    ):
        if narrow in rates and wide in rates:
            assert rates[wide] <= rates[narrow] <= 4.1 * rates[wide], (narrow, wide)
    if found.bandwidth:
        assert 1e9 < found.memory < 1e12
        assert 20 < rates["bf16"] / found.bandwidth < 600  # FLOPs a byte
    assert found.label and found.source and found.date
    assert all(1 < m.factor <= rates[m.formats] / rates[m.over] + 1e-9 for m in found.measured)
    assert found.price is None or (0 < found.price < 20 and found.price_source and found.price_date)


def test_sparsity_is_not_counted():
    """NVIDIA prints 624, 1979, 4500 TFLOP/s of 16-bit floats for these, with half of the numbers zero."""
    assert [profiles()[n].peak.bf16 / 1e12 for n in ("a100-80g", "h100", "b200")] == [312, 989.4, 2250]


@pytest.mark.parametrize(
    ("name", "tflops", "gigabytes", "terabytes_per_second"),
    [
        ("h200", 989.5, 141, 4.8),
        ("mi300x", 1307.4, 192, 5.3),
        ("tpu-v5p", 459, 95, 2.765),
        ("tpu-v6e", 918, 32, 1.638),
        ("l40s", 362.05, 48, 0.864),
        ("rtx-4090", 165.2, 24, 1.008),
    ],
)
def test_profiles_are_what_makers_print(name, tflops, gigabytes, terabytes_per_second):
    """Data sheets, 16-bit floats with 32-bit sums, without sparsity."""
    found = profiles()[name]
    assert found.peak.bf16 / 1e12 == pytest.approx(tflops, rel=1e-3)
    assert found.memory / 1e9 == pytest.approx(gigabytes, rel=1e-3)
    assert found.bandwidth / 1e12 == pytest.approx(terabytes_per_second, rel=0.02)


@pytest.mark.parametrize(
    ("name", "formats", "units", "native"),
    [
        ("a100-80g", ("int4", "int4"), "int4", True),
        ("a100-80g", ("int4", "int8"), "int8", False),
        ("a100-80g", ("e4m3", "e4m3"), "bf16", False),
        ("h100", ("int4", "bf16"), "bf16", False),
        ("h100", ("int4", "e4m3"), "bf16", False),
        ("h100", ("e4m3", "e5m2"), "fp8", True),
        ("h100", ("mxfp4", "nvfp4"), "fp8", False),
        ("b200", ("mxfp4", "nvfp4"), "fp4", True),
        ("b200", ("e2m1", "mxfp8_e4m3"), "fp8", False),
        ("b200", ("ternary", "uint4"), "int8", False),
        ("b200", ("int9", "e3m4"), "bf16", True),
        ("b200", ("int16", "int16"), "fp32", True),
        ("b200", ("fp32", "bf16"), "fp32", False),
        ("rtx-4090", ("binary", "midrise3"), "int4", True),
        ("tpu-v6e", ("e4m3", "e4m3"), "bf16", False),
        ("tpu-v6e", ("mxint8", "int8"), "int8", True),
        ("cpu-core", ("int8", "int8"), "bf16", False),
    ],
)
def test_the_narrowest_unit_that_holds_all_operands_is_used(name, formats, units, native):
    rate = hardware(name).rate(*formats)
    assert rate.units == units
    assert rate.flops == getattr(hardware(name).peak, units)
    words = f"{' x '.join(formats)} runs on the {units} units of {name}"
    assert rate.note == ("" if native else words)


def test_a_rate_that_is_not_known_is_said():
    with pytest.raises(ConfigError, match="tpu-v6e has no known rate for fp32; known: int8, bf16"):
        hardware("tpu-v6e").rate("fp32")


def test_speed_ups_replace_peaks():
    faster = hardware("b200").with_speedups({"fp8": 1.4, "fp4": 1.7})
    base = faster.rate("bf16").flops
    assert base == hardware("b200").rate("bf16").flops
    assert [faster.rate(f, f).flops / base for f in ("e4m3", "mxfp4", "int8")] == pytest.approx([1.4, 1.7, 1])
    assert hardware("b200").peak.int8 == 4.5e15  # and the profile is as it was
    for bad in ({"fp9": 1.2}, {"bf16": 2.0}, {"fp8": 0}, {"fp8": math.nan}, {"fp8": "fast"}):
        with pytest.raises(ConfigError):
            hardware("b200").with_speedups(bad)


@pytest.mark.parametrize(("forward", "backward", "training"), [(2, 1, 1.2), (1, 2, 1.5), (2, 2, 2.0)])
def test_training_speed_ups_are_quartets(forward, backward, training):
    """Castro et al. 2025, 2505.14669: FP4 twice as fast as FP8, in one pass or both; and so by way of seconds."""
    card = hardware("b200").with_speedups({"fp8": 1.5, "fp4": 3.0})
    grids = {1: "e4m3", 2: "e2m1"}

    def seconds(forward, backward):
        fw, bw = parse_format(grids[forward]), parse_format(grids[backward])
        passes = [((fw, fw), 1e20), ((bw, bw), 2e20)]
        return sum(train_seconds(card, {pair: flops}) for pair, flops in passes)

    assert seconds(1, 1) / seconds(forward, backward) == pytest.approx(training, rel=1e-12)


@pytest.mark.parametrize("bits", [2.0, 4.56, 7.0, 16.0])
def test_tied_bits_cost_what_the_papers_count(bits):
    assert bit_flops(3e8, 6e9, bits) == pytest.approx(train_flops(3e8, 6e9, bits), rel=1e-12)
    assert train_flops(3e8, 6e9, bits) == pytest.approx(6 / 16 * 3e8 * 6e9 * bits, rel=1e-12)
    shape = ladder_shape(3e6)
    exact = shape.flops_per_token(512) * 6e7
    assert bit_flops(shape, 6e7, bits, bits, bits, seq_len=512) == pytest.approx(exact * bits / 16, rel=1e-12)
    wide = bit_flops(shape, 6e7, 4, 8, 2, seq_len=512)
    inner = 12 * shape.depth * shape.width * 512
    assert wide == pytest.approx(6e7 / 16 * (6 * shape.counts().matmul * 8 + inner * 2), rel=1e-12)
    with pytest.raises(ConfigError, match="Shape"):
        bit_flops(3e8, 6e9, 4, 4, 4)
    with pytest.raises(ConfigError, match="seq_len"):
        bit_flops(shape, 6e9, 4)


def test_work_is_all_the_flops_of_a_model():
    shape = ladder_shape(3e6)
    for scheme in ("16", "w4a8kv6", "w=e4m3, a=e4m3, grad_a=e5m2, head=int8, q=int8, kv=int8"):
        assert sum(train_work(shape, 1e8, scheme, 256).values()) == pytest.approx(
            shape.flops_per_token(256) * 1e8, rel=1e-12
        )
        assert sum(train_work(3e6, 1e8, scheme).values()) == pytest.approx(6 * 3e6 * 1e8, rel=1e-12)
    named = {(a.name, b.name): n for (a, b), n in train_work(1e9, 1e9, Scheme.parse(FP8)).items()}
    assert named == {("e4m3", "e4m3"): 2e18, ("e5m2", "e4m3"): 4e18}


def test_a_third_in_fp8_and_two_thirds_in_sixteen_bits():
    """Only the forward pass is in 8 bits: 1 / ((1/3) / 2 + 2/3) = 1.2 times as fast where FP8 is twice as fast."""
    card = hardware("b200")
    full = train_seconds(card, train_work(1e9, 2e10))
    assert full == pytest.approx(1.2e20 / 2.25e15)
    assert full / train_seconds(card, train_work(1e9, 2e10, "w=e4m3, a=e4m3")) == pytest.approx(
        1.2, rel=1e-12
    )
    assert full / train_seconds(card, train_work(1e9, 2e10, FP8)) == pytest.approx(2, rel=1e-12)
    assert train_seconds(card, train_work(1e9, 2e10, "w4")) == pytest.approx(
        full
    )  # weights alone gain nothing


def test_time_and_money_of_training():
    card, model = hardware("a100-80g"), {"params": 1e9, "tokens": 2e10}
    told = plan("chinchilla-2024", **model, hardware=card, achieved=0.4, devices=8)
    hours = 1.2e20 / 312e12 / 0.4 / 8 / 3600
    assert told["hours"].value == pytest.approx(hours)
    assert told["money"].value == pytest.approx(hours * 8 * 1.79)
    assert any("40% of the peak" in note for note in told.notes)
    assert any("1.79 USD" in note and "2026-11-09" in note for note in told.notes)
    bound = plan("chinchilla-2024", **model, hardware=card, devices=8)
    assert bound["hours"].value == pytest.approx(0.4 * hours)
    assert any("lower bound" in note for note in bound.notes)
    measured = plan("chinchilla-2024", **model, hardware=card, throughput=1e5, devices=8)
    assert measured["hours"].value == pytest.approx(2e5 / 3600)
    unknown = plan("kumar-2024", **model, bits="w4a4", hardware="tpu-v6e")
    assert math.isnan(unknown["money"].value)
    assert "what tpu-v6e costs is not known here" in unknown.notes
    assert "int4 x int4 runs on the int8 units of tpu-v6e" in unknown.notes


@pytest.mark.parametrize(
    "wrong", [{"achieved": 0}, {"achieved": 1.2}, {"achieved": math.nan}, {"devices": 0}]
)
def test_impossible_figures_are_refused(wrong):
    with pytest.raises(ConfigError):
        Machine(hardware("h100"), **wrong)
    with pytest.raises(ConfigError):
        plan("chinchilla-2024", params=1e9, tokens=2e10, hardware="h100", **wrong)


def test_hours_count_serving_where_the_budget_does():
    told = plan("chinchilla-2024", hours=100, hardware="h100", achieved=0.4, served="1T")
    assert told["hours"].value == pytest.approx(100)
    spent = told["training_flops"].value + told["serving_flops"].value
    assert spent == pytest.approx(0.4 * hardware("h100").rate("bf16").flops * 360_000)


def test_a_device_serves_what_its_memory_holds():
    told = plan("kumar-2024", tokens=1e12, bits=["bf16", "int8"], speed=1, hardware="h100", context="4k")
    assert told["served_bytes"].value == pytest.approx(80e9)
    more = plan(
        "kumar-2024", tokens=1e12, bits=["bf16", "int8"], speed=1, hardware="h100", context="4k", devices=2
    )
    assert more["served_bytes"].value == pytest.approx(160e9)


def row(**other):
    base = {"params": 1e6, "tokens": 1e7, "loss": 3.0, "flops": 6e13, "autocast": "float32"}
    return {**base, "seconds": 6e13 / 93e9 / 0.5, **other}


def test_the_share_of_the_peak_is_read_off_rows():
    core = hardware("cpu-core")
    rows = [
        row(trunk="a"),
        row(trunk="b", seconds=6e13 / 93e9 / 0.6),
        row(trunk="c", seconds=6e13 / 93e9 / 0.3),
    ]
    rows += [
        row(trunk="a", tokens=2e7, flops=12e13),  # whose seconds are those since the row before
        row(trunk="a", post_format="int4", seconds=1.0, gap=0.1),
        row(trunk="b", average="ema:0.999", seconds=1.0),
        row(trunk="d", seconds=1.0),  # faster than can be: went on from a checkpoint
        row(trunk="e", autocast=None, seconds=1e9),
        row(trunk="f", seconds=None),
    ]
    found = achieved_from(Runs.from_rows(rows), core)
    assert found.n == 3
    assert (found.share, found.low, found.high) == pytest.approx((0.5, 0.3, 0.6))
    assert achieved_from(Runs.from_rows([row(autocast="bfloat16")]), core).share == pytest.approx(
        0.5 * 93 / 223
    )
    assert achieved_from(Runs.from_rows([row(autocast=None)]), core, products="fp32").share == pytest.approx(
        0.5
    )
    assert achieved_from(Runs.from_rows([row(), row()]), core, devices=2).share == pytest.approx(0.25)
    told = Machine(core, achieved=Achieved(0.25, 0.2, 0.3, 4))
    assert told.flops_per_second == pytest.approx(0.25 * 223e9)
    (choice,) = chosen(kumar, None, None)
    assert "hours are of cpu-core at 25% of the peak (median of 4, 20% to 30%)" in told.notes(choice)
    with pytest.raises(DataError, match="flops, seconds and autocast"):
        achieved_from(Runs.from_rows([row(autocast=None)]), core)
    with pytest.raises(DataError, match="faster than the peak of cpu-core"):
        achieved_from(Runs.from_rows([row(seconds=1.0)]), core)


def test_bytes_of_a_cache_by_hand():
    """Llama 3 8B: 32 layers, 8 groups of 128, keys and values: 128 KiB a token."""
    llama = Cache(32, 8, 128)
    assert llama.bytes(1) == 131072
    assert llama.bytes(8192, batch=4, bits=8) == 131072 * 8192 * 2
    shape = ladder_shape(3e6)
    assert Cache.of(shape).bytes(1) == 4 * shape.depth * shape.width
    guess = Cache.guess(8e9)
    assert 12 * guess.layers * (128 * guess.kv_heads) ** 2 == pytest.approx(8e9, rel=0.1)
    assert "by rule" in guess.rule
    with pytest.raises(ConfigError):
        Cache(0, 8, 128)


def test_bytes_of_a_model():
    assert artefact_bytes(8e9, 16) == 16e9
    counts = ladder_shape(3e6, vocab=1000).counts()
    assert artefact_bytes(counts, 16) == 2 * counts.total
    rest = counts.embedding + counts.norm + counts.head
    assert artefact_bytes(counts, 4.125) == pytest.approx((counts.total - rest) * 4.125 / 8 + 2 * rest)


def test_decoding_is_bound_by_reading_then_by_arithmetic():
    card = hardware("h100")
    assert tokens_per_second(card, 16e9, 8e9) == pytest.approx(3.35e12 / 16e9)
    assert tokens_per_second(card, 16e9, 8e9, batch=1e5) == pytest.approx(989.4e12 / 16e9)
    llama = Cache(32, 8, 128)
    one = serve(card, 8e9, context=2048, cache=llama)
    assert one.tokens_per_second == pytest.approx(3.35e12 / (16e9 + 2048 * 131072))
    assert one.dollars == pytest.approx(3.99 / 3600 / one.tokens_per_second * 1e6)
    assert one.fits
    assert "reading is the bound; real servers are slower" in one.notes
    assert not any("by rule" in note for note in one.notes)
    many = serve(card, 8e9, context=16, cache=llama, batch=4096)
    assert many.tokens_per_second == pytest.approx(989.4e12 / 16e9)
    assert "arithmetic is the bound; real servers are slower" in many.notes
    assert not serve(card, 8e9, context=2048, cache=llama, batch=4096).fits
    assert serve(card, 8e9, context=2048, cache=llama, batch=4096, devices=16).fits
    low = serve(card, 8e9, context=2048, cache=llama, w="int4 group128", kv="int8")
    assert low.weight_bytes == 8e9 * 4.125 / 8
    assert low.cache_bytes == pytest.approx(2048 * 131072 / 2 * (8 + 16 / 1024) / 8)
    assert "bf16 x int4 runs on the bf16 units of h100" in low.notes
    shape = ladder_shape(3e6)
    small = serve(card, shape, context=1024)
    assert small.weight_bytes == 2 * shape.counts().total
    assert small.cache_bytes == Cache.of(shape).bytes(1024)


def test_what_is_not_known_of_serving_is_said():
    served = serve(hardware("cpu-core"), 1e8, context=1024)
    assert math.isnan(served.tokens_per_second) and math.isnan(served.dollars) and served.fits is None
    said = " ".join(served.notes)
    assert all(
        words in said for words in ("bandwidth of cpu-core", "memory of cpu-core", "costs is not", "by rule")
    )
    for wrong in ({"context": 0}, {"context": 9, "batch": -1}, {"context": 9, "devices": math.nan}):
        with pytest.raises(ConfigError):
            serve(hardware("h100"), 1e9, **wrong)


def test_ones_own_file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    card = hardware(path)
    assert (card.name, card.rate("int4").units, card.dollars(1800, 2)) == ("my-card", "int8", 2.0)
    path.write_text(OWN + OWN.replace("my-card", "other"))
    assert hardware(f"{path}#other").name == "other"
    with pytest.raises(
        ConfigError, match="describes 2 kinds of hardware; write own.toml#NAME with one of my-card"
    ):
        hardware(path)
    with pytest.raises(ConfigError, match="no hardware 'third'"):
        hardware(f"{path}#third")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[my-card]", "[my card]", "not valid TOML"),
        ("my-card", '"my\\u001bcard"', "no name"),
        ('label = "a card"', "", "my-card.label: Field required"),
        ('label = "a card"', 'label = "a\\u001b[2Jcard"', "can be printed"),
        ('label = "a card"', f'label = "{"x" * 400}"', "at most 300"),
        ('label = "a card"', 'label = "a card"\nname = "x"', "unknown key 'name'"),
        ("memory = 24e9", 'memory = "24 GB"', "my-card.memory: .*number"),
        ("memory = 24e9", "memory = -24e9", "greater than 0"),
        ("memory = 24e9", "memory = nan", "my-card.memory"),
        ("memory = 24e9", "memory = inf", "my-card.memory"),
        ("memory = 24e9", "memory = true", "my-card.memory"),
        ("memory = 24e9", f"memory = 1{'0' * 400}", "my-card"),
        ("memory = 24e9", "memry = 24e9", "unknown key; did you mean 'memory'"),
        ("bf16 = 100e12", "bf17 = 100e12", "my-card.peak.bf17: unknown key; did you mean 'bf16'"),
        ("bf16 = 100e12", "bf16 = 0", "my-card.peak.bf16"),
        ("bf16 = 100e12\nint8 = 200e12", "", "one rate at least"),
        ("factor = 1.3", "factor = 1.3\nfast = 2", "unknown key; did you mean 'factor'"),
        ('what = "training"', 'what = "dreaming"', "measured.0.what"),
        ('price_date = "2026-11-27"', "", "come together"),
        ("price = 2\n", "", "come together"),
        ('date = "2026-11"', 'date = "lately"', "my-card.date"),
        ('date = "2026-11"', "date = 2026-11-27", "my-card.date"),
    ],
)
def test_a_file_with_a_mistake_is_refused(old, new, words, tmp_path):
    path = tmp_path / "own.toml"
    assert old in OWN
    path.write_text(OWN.replace(old, new, 1))
    with watched() as done, pytest.raises(ConfigError, match=words) as caught:
        hardware(path)
    assert done == []
    assert "own.toml" in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_files_that_are_no_hardware(tmp_path):
    for raw in (
        b"",
        b"my-card = 3",
        b"[[my-card]]\nlabel = 'x'",
        b"\xff\xfe",
        b"a" * 70_000,
        b"[a]\n[b]\n[c]\n",
    ):
        path = tmp_path / "strange.toml"
        path.write_bytes(raw)
        with pytest.raises(ConfigError):
            hardware(path)
    path.write_text("".join(f"[card{k}]\n" for k in range(50)))
    with pytest.raises(ConfigError, match="more than 40 tables"):
        hardware(path)
    with pytest.raises(ConfigError, match="no file"):
        hardware(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="did you mean 'h100'"):
        hardware("h1000")
    with pytest.raises(ConfigError, match="known: a100-80g"):
        hardware("abacus\x1b[2J")


def spoilt(rng, raw):
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(raw)))
        piece = [b"", b"=", b"[", b'"', b"e999", b"\x00", b"nan", b".", b"\n", b"-1"][rng.integers(10)]
        raw = raw[:place] + piece + raw[place + int(rng.integers(4)) :]
    return raw


def test_spoilt_files_are_read_or_refused(tmp_path):
    rng, taken = np.random.default_rng(0), 0
    path = tmp_path / "own.toml"
    for _ in range(300):
        path.write_bytes(raw := spoilt(rng, OWN.encode()))
        try:
            card = hardware(path)
        except ConfigError as error:
            assert str(error).isprintable(), raw
        else:
            taken += 1
            assert all(0 < flops < 1e30 for flops in card.peak.known().values()), raw
    assert 5 < taken < 250


def test_the_verb_lists_and_shows():
    def run(*words):
        return CliRunner().invoke(app, ["hardware", *words])

    listed = run().stdout
    assert all(name in listed for name in NAMES) and "empty means unknown" in listed
    assert max(map(len, listed.splitlines())) <= 100
    assert [h["name"] for h in json.loads(run("--json").stdout)] == NAMES
    shown = run("h100").stdout
    assert all(
        word in shown for word in ("989.4 TFLOP/s", "3.99 USD", "2026-11-09", "2410.19313", "white paper")
    )
    assert "Price: unknown." in run("mi300x").stdout
    assert "Memory: unknown" in run("cpu-core").stdout
    assert json.loads(run("tpu-v6e", "--json").stdout)["peak"]["fp8"] is None
    assert isinstance(run("h10").exception, ConfigError)


def test_units_are_named_narrowest_first():
    assert [unit for unit in UNITS if unit.startswith("fp")] == ["fp4", "fp8", "fp32"]
