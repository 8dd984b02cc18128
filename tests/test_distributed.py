"""One model on many processes: what one process reaches, resumed to the bit, or refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ranks import trained
from test_train import config
from typer.testing import CliRunner

from bitlaw import ConfigError, read_runs
from bitlaw.cli.main import app
from bitlaw.formats import Recipe
from bitlaw.lab.train import World
from bitlaw.lab.train.distributed import ALONE, check, of_a_part

SWEEP = """
[sweep]
sizes = [4000, 6000]
budgets = [{budgets}]
schemes = ["16", "w4a8"]
seeds = [3]
batch_size = 4
seq_len = 64
eval_tokens = 4096
accumulate = 2
post_formats = ["int3"]
keep_models = true
"""
SCHEMES = ("16", "w8", "w=int8 tensor", "a=int8 token", "w=int4 learned")


def torchrun(processes, *arguments, **how):
    """A command under torchrun, in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(processes),
        *map(str, arguments),
    ]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **how
    )


def on_processes(jobs, folder, processes=2):
    """What `trained` gives for some jobs, on many processes."""
    for number, job in enumerate(jobs):
        job["folder"] = str(folder / str(number))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    results = folder / "results.json"
    running = torchrun(processes, Path(__file__).with_name("ranks.py"), folder / "jobs.json", results)
    said, _ = running.communicate(timeout=600)
    assert running.returncode == 0, said[-4000:]
    return json.loads(results.read_text())


# ---- refusals

TWO, SHARDED = World(size=2), World(size=2, shard="fsdp")


@pytest.mark.parametrize(
    ("changes", "world", "words"),
    [
        ({"batch_size": 3}, TWO, "3 sequences are not 2 equal parts"),
        ({"batch_size": 6, "accumulate": 2}, World(size=4), "6 sequences are not 4 equal parts"),
        ({"scheme": "w4a8"}, TWO, "set accumulate to 2"),
        ({"scheme": "kv=nvfp4"}, TWO, "set accumulate to 2"),
        ({"scheme": "grad_w=int8 token"}, TWO, "set accumulate to 2"),
        ({"late": (("a8", 0.5),)}, TWO, "set accumulate to 2"),
        ({"scheme": "w=int8 stored"}, TWO, "no float copy to share"),
        ({"scheme": "w=int8 stochastic"}, TWO, "draws other numbers"),
        ({"optimizer": "muon"}, SHARDED, "muon needs whole matrices"),
        ({"compile": True}, TWO, "set it to false"),
    ],
)
def test_what_many_processes_would_do_otherwise_is_refused(changes, world, words):
    cfg = config(**changes)
    with pytest.raises(ConfigError, match=words):
        check(cfg, world)
    check(cfg, ALONE)


@pytest.mark.parametrize(
    ("part", "text", "tied"),
    [
        ("w", "int4 tensor", False),
        ("a", "int8", True),
        ("a", "int8 learned", True),
        ("a", "int8 token", False),
        ("a", "int8 group16", False),
        ("a", "int8 block16", False),
        ("q", "mxfp4", False),
        ("kv", "nvfp4", True),
        ("grad_a", "int8 token", False),
        ("grad_w", "int8 token", True),
        ("a", "bf16", False),
    ],
)
def test_parts_that_are_said_to_be_free_of_each_other_are(part, text, tied):
    """Against the rounding itself: whether a sequence is rounded otherwise when there is another beside it."""
    from bitlaw.lab.precision import fake_quantize

    recipe = Recipe.parse(text)
    assert of_a_part(part, recipe) == tied
    if recipe.scale != "learned" and part not in ("w", "grad_w"):
        torch.manual_seed(0)
        x = torch.randn(2, 64, 32) * torch.tensor([1.0, 5.0])[:, None, None]
        assert torch.equal(fake_quantize(x, recipe)[:1], fake_quantize(x[:1], recipe)) != tied


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shard", "tensor"], "unknown --shard"),
        (["--size", "5k"], "5000 is none of the sweep's: 4000, 6000"),
        (["--scheme", "w3"], "'w3' is none of the sweep's: 16, w4a8"),
        (["--seed", "4"], "4 is none of the sweep's: 3"),
        (["--size", "4k"], "2 fit"),
        (["--size", "4k", "--scheme", "16", "--tokens", "7k"], "0 fit"),
        (["--size", "4k", "--scheme", "16", "--device", "tpu"], "cannot use the device 'tpu'"),
    ],
)
def test_one_trunk_is_chosen_or_asked_for(arguments, words, tmp_path):
    (tmp_path / "s.toml").write_text(SWEEP.format(budgets="8000, 16000"))
    out = CliRunner().invoke(app, ["train", str(tmp_path / "s.toml"), *arguments])
    assert isinstance(out.exception, ConfigError) and words in str(out.exception)


# ---- the same run


@pytest.mark.slow
def test_without_torchrun_the_rows_are_those_of_the_sweep(tmp_path):
    sweep = (
        SWEEP.format(budgets="8000, 12000").replace('"16", "w4a8"', '"16"').replace("4000, 6000]", "4000]", 1)
    )
    (tmp_path / "s.toml").write_text(sweep)
    source = [str(tmp_path / "s.toml"), "--corpus", str(Path(__file__).parent)]
    for chosen in (["--size", "4k", "--tokens", "8k"], ["--scheme", "16"]):
        out = CliRunner().invoke(app, ["train", *source, *chosen, "--folder", str(tmp_path / "a"), "--json"])
        assert out.exit_code == 0, out.output
    assert [row["tokens"] for row in json.loads(out.stdout)] == [7936, 7936, 12032, 12032]
    CliRunner().invoke(app, ["sweep", "run", *source, "--folder", str(tmp_path / "b"), "--workers", "1"])
    assert same_rows(tmp_path / "a", tmp_path / "b", 4)
    assert not list((tmp_path / "a").glob("large-*"))


def test_the_password_of_a_store_is_not_said(secret, tmp_path):
    (tmp_path / "s.toml").write_text(SWEEP.format(budgets="8000").replace("4000, 6000]", "4000]", 1))
    words = ["train", str(tmp_path / "s.toml"), "--scheme", "16", "--corpus", str(Path(__file__).parent)]
    out = CliRunner().invoke(app, [*words, "--store", secret, "--folder", str(tmp_path / "s")])
    assert out.exit_code == 0, out.exception
    assert "Rows: postgresql://" in out.output and "secret" not in out.output


def same_rows(one, other, rows):
    """Whether the rows of a table are among another's, but for times, and the other budgets."""
    ours, theirs = (
        {row["id"]: row for row in read_runs(f).frame.drop("started", "seconds", "config").to_dicts()}
        for f in (one, other)
    )
    return len(ours) == rows and all(theirs[id_] == row for id_, row in ours.items())


@pytest.mark.slow
def test_two_processes_reach_the_loss_of_one(tmp_path, capsys):
    """50 steps in float64: in float32 rounding to a grid amplifies the order of sums, as it does in one process."""
    plain = {"budgets": [50 * 256]}
    changes = [{**plain, "scheme": scheme} for scheme in SCHEMES]
    changes += [
        {**plain, "late": [["w3", 0.5]], "averages": "swa:10:2"},
        {**plain, "optimizer": "schedule-free", "cooldown": 0.0},
        {**plain, "scheme": "w8", "recompute": True, "accumulate": 4},
        {**plain, "scheme": "w4a8", "accumulate": 2},
        {**plain, "scheme": "grad_a=mxint8, grad_w=int8", "accumulate": 2},
        # at the usual rate a single step crosses zero, and what is small does not stay so
        {
            **plain,
            "scheme": "w=int8 tensor learned, a=int8 learned",
            "accumulate": 2,
            "learning_rate": 0.0005,
        },
    ]
    jobs = [{"changes": c, "shard": shard, "double": True} for c in changes for shard in ("ddp", "fsdp")]
    jobs.append({"changes": {**plain, "optimizer": "muon"}, "shard": "ddp", "double": True})
    assert compare(jobs, tmp_path, capsys) < 1e-5


@pytest.mark.slow
def test_in_float32_two_processes_are_one_that_cuts_its_batches_in_two(tmp_path, capsys):
    """To the bit with DDP; FSDP2 sums the norm of gradients in another order, which shows without a grid too."""
    changes = [
        {"scheme": scheme, "budgets": [50 * 256], "accumulate": 2}
        for scheme in (*SCHEMES, "w4a8kv6", "w=int4 learned, a=int8 learned", "grad_a=int6, grad_w=int8")
    ]
    assert compare([{"changes": c, "shard": "ddp"} for c in changes], tmp_path, capsys) == 0
    (tmp_path / "16").mkdir()
    jobs = [{"changes": {"budgets": [50 * 256]}, "shard": shard} for shard in ("ddp", "fsdp")]
    assert compare(jobs, tmp_path / "16", capsys) < 1e-5


def compare(jobs, folder, capsys):
    """Train jobs on two processes and on one; print and return the differences of their losses, the largest."""
    many, largest = on_processes(jobs, folder), 0.0
    for number, (job, found) in enumerate(zip(jobs, many, strict=True)):
        try:
            alone = trained({**job, "folder": str(folder / f"alone-{number}")}, ALONE)
        finally:
            torch.set_default_dtype(torch.float32)
        assert [end[:3] for end in found] == [end[:3] for end in alone]
        for (_, scheme, average, loss, _), (*_, expected, _) in zip(found, alone, strict=True):
            difference = abs(loss / expected - 1)
            largest = max(largest, difference)
            with capsys.disabled():
                others = {k: v for k, v in job["changes"].items() if k not in ("scheme", "budgets", "late")}
                print(f"\n{job['shard']:4} {scheme:32} {average:9} {difference:.1e} {others or ''}", end="")
    return largest


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_runs_on_many_processes_resume_to_the_bit(processes, tmp_path):
    """The last process asks for a stop at three steps; sums of three processes depend on their order."""
    changes = [
        {"scheme": "w8", "averages": "swa:6:2"},
        {"scheme": "16", "late": [["w=int4 learned, a=int8 token", 0.5]]},
        {"scheme": "a=int8 token", "optimizer": "schedule-free", "cooldown": 0.0},
    ]
    common = {"batch_size": 6, "budgets": [8 * 384, 16 * 384]}
    jobs = [
        {"changes": {**c, **common}, "shard": shard, "stops": stops}
        for c in changes
        for shard in ("ddp", "fsdp")
        for stops in ((), (3, 5, 4))
    ]
    found = on_processes(jobs, tmp_path, processes)
    assert all(found)
    assert found[::2] == found[1::2]


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_a_run_that_is_stopped_and_killed_under_torchrun_gives_the_same_rows(shard, tmp_path):
    (tmp_path / "s.toml").write_text(SWEEP.format(budgets="48000, 96000"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(folder):
        arguments = ["-m", "bitlaw", "train", "s.toml", "--size", "6k", "--scheme", "16", "--shard", shard]
        return torchrun(2, *arguments, "--folder", folder, "--json", cwd=tmp_path, env=environment)

    straight = start("straight")
    said, _ = straight.communicate(timeout=300)
    assert straight.returncode == 0, said
    broken = tmp_path / "broken"
    for number, pattern in ((signal.SIGTERM, "large-*"), (signal.SIGKILL, "large-*/trunk/step-*")):
        running, deadline = start("broken"), time.monotonic() + 120
        while not list(broken.glob(pattern)):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        started = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        for pid in [running.pid, *map(int, started if number == signal.SIGKILL else ())]:
            os.kill(pid, number)  # torchrun passes SIGTERM on
        running.communicate(timeout=60)
    last = start("broken")
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert same_rows(tmp_path / "straight", broken, 4) and same_rows(broken, tmp_path / "straight", 4)
    for model in (tmp_path / "straight" / "models").glob("*/model.safetensors"):
        assert model.read_bytes() == (broken / "models" / model.parent.name / model.name).read_bytes()
    alone = CliRunner().invoke(
        app,
        [
            "train",
            str(tmp_path / "s.toml"),
            "--size",
            "6k",
            "--scheme",
            "16",
            "--folder",
            str(tmp_path / "one"),
            "--json",
        ],
    )
    assert [set(row) for row in json.loads(alone.stdout)] == [
        set(row) for row in json.loads(said[said.index("[\n {") : said.rindex("]") + 1])
    ]
