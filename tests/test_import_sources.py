"""What trackers and tools write comes in as they wrote it: their own libraries make the runs where there are any."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
import urllib.request

import polars as pl
import pytest
from servers import free_port
from watch import watched

from bitlaw import BitlawError, ConfigError, DataError, import_runs
from bitlaw.runs import read_raw

TABLE = """# A model

| Quantization | imatrix | Model size [GiB] | PPL | ΔPPL | KLD |
|:-------------|---------|------------------|-----|------|-----|
| f16 | None | 14.97 | 6.2000 ± 0.0310 | - | - |
| q8_0 | None | 7.96 | 6.2062 ± 0.0310 | 0.006 ± 0.001 | 0.001 ± 0.000006 |
| **q4_K_M** | 10m | 4.58 | 6.5100 ± 0.0330 | 0.31 ± 0.004 | 0.031 ± 0.0002 |
| iq2_XS | 10m | 2.43 | broken | - | - |

| Speed | t/s |
|---|---|
| q8_0 | 7 |
"""
LOG = """0.1 I llama_model_loader: loaded meta data with 22 pairs and 292 tensors from /m/A-8B-Q4_K_M.gguf (V3)
print_info: file type   = Q4_K - Medium
print_info: file size   = 4.58 GiB (4.89 BPW)
print_info: model params     = 8.03 B
[1]5.1,[2]6.0,
"""
FINAL = "0.13.291.205 I Final estimate: PPL = 6.4071 +/- 0.03912\n"
KL = """====== Perplexity statistics ======
Mean PPL(Q)                   :   6.407115 ±   0.039119
Mean PPL(base)                :   6.233160 ±   0.037828
Cor(ln(PPL(Q)), ln(PPL(base))):  99.35%
Mean ln(PPL(Q)/PPL(base))     :   0.027526 ±   0.000706
Mean    KLD:   0.031273 ±   0.000238
Same top p: 92.6 ± 0.1 %
"""


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def rows(came):
    return came.runs.frame.to_dicts()


# ---- llama.cpp


def test_a_table_of_llama_cpp(tmp_path):
    path = put(tmp_path / "a.md", TABLE)
    constants = {"params": "8B", "tokens": "15T"}
    with pytest.raises(DataError, match=r"line 8, column ppl: 'broken' is not a number"):
        import_runs(path, constants=constants, accept_guesses=True)
    came = import_runs(path, constants=constants, accept_guesses=True, keep_good=True)
    base, eight, four = rows(came)
    assert [row["post_format"] for row in (base, eight, four)] == [None, "int8", "int4"]
    assert base["loss"] == pytest.approx(math.log(6.2), rel=1e-12) and base["gap"] is None
    assert base["loss_se"] == pytest.approx(0.031 / 6.2) and four["kl"] == 0.031 and four["kl_se"] == 0.0002
    assert four["gap"] == pytest.approx(math.log(6.51 / 6.2), rel=1e-12) and four["gap_se"] is None
    assert four["bytes"] == pytest.approx(4.58 * 2**30) and four["id"] == "a q4_K_M"


def test_a_log_of_llama_perplexity(tmp_path):
    (row,) = rows(
        import_runs(put(tmp_path / "a.log", LOG + FINAL), constants={"tokens": "15T"}, accept_guesses=True)
    )
    assert row["loss"] == pytest.approx(math.log(6.4071)) and row["loss_se"] == pytest.approx(
        0.03912 / 6.4071
    )
    assert (row["params"], row["post_format"], row["bpw"]) == (8.03e9, "int4", 4.89)
    (row,) = rows(
        import_runs(put(tmp_path / "b.log", LOG + KL), constants={"tokens": "15T"}, accept_guesses=True)
    )
    assert row["loss"] == pytest.approx(math.log(6.407115))
    assert [row[c] for c in ("gap", "gap_se", "kl", "kl_se")] == [0.027526, 0.000706, 0.031273, 0.000238]
    with pytest.raises(DataError, match="no line `Final estimate"):
        import_runs(put(tmp_path / "c.log", LOG))


# ---- lm-evaluation-harness

RESULTS = {
    "results": {
        "hellaswag": {"alias": "hellaswag", "acc,none": 0.5, "acc_stderr,none": 0.005, "acc_norm,none": 0.6},
        "arc": {"acc_norm,none": 0.3, "acc_norm_stderr,none": 0.01},
        "wikitext": {"byte_perplexity,none": 1.75, "bits_per_byte,none": 0.807},
    },
    "config": {
        "model": "hf",
        "model_args": "pretrained=me/m,dtype=bfloat16,load_in_4bit=True",
        "model_num_parameters": 10**9,
    },
}


def test_results_of_lm_eval(tmp_path):
    put(tmp_path / "me__m" / "results_1.json", RESULTS)
    with pytest.raises(ConfigError, match="nothing in .* gives loss"):
        import_runs(tmp_path, constants={"tokens": "1T"}, accept_guesses=True)
    columns = {"loss": "wikitext/byte_perplexity in ppl", "bpb": "wikitext/bits_per_byte"}
    (row,) = rows(import_runs(tmp_path, columns, {"tokens": "1T"}, accept_guesses=True))
    assert row["error"] == pytest.approx(0.6) and row["bpb"] == 0.807
    assert row["loss"] == pytest.approx(math.log(1.75)) and row["params"] == 1e9
    assert (row["w_format"], row["post_format"], row["method"], row["id"]) == (
        "bf16",
        "e2m1",
        "bitsandbytes",
        "me/m",
    )


def test_a_group_of_lm_eval_is_counted_by_its_tasks(tmp_path):
    tasks = {"mmlu_a": 0.4, "mmlu_b": 0.4, "mmlu_c": 0.9, "boolq": 0.7, "alone": 0.6}
    results = {task: {"acc,none": value} for task, value in {"mmlu": 0.5, **tasks}.items()}
    parts = {"mmlu": ["mmlu_a", "mmlu_b", "mmlu_c"], "alone": ["not_written"], "boolq": []}
    path = put(tmp_path / "results.json", {**RESULTS, "results": results, "group_subtasks": parts})
    (row,) = rows(import_runs(path, constants={"tokens": "1T", "loss": "2"}, accept_guesses=True))
    assert row["error"] == pytest.approx(0.4)


def test_formats_of_lm_eval_that_are_none_of_ours_are_asked_about(tmp_path):
    arguments = {"pretrained": "me/m", "dtype": "auto", "load_in_4bit": True, "bnb_4bit_quant_type": "nf3"}
    path = put(tmp_path / "results.json", {**RESULTS, "config": {"model_args": arguments}})
    constants = {"tokens": "1T", "params": "1B", "loss": "2"}
    with pytest.raises(ConfigError, match=r'values = \{ "nf3" = "int3" \}'):
        import_runs(path, constants=constants, accept_guesses=True)
    mapping = {"post_format": {"column": "post_format", "values": {"nf3": "int4"}}}
    came = import_runs(path, mapping, constants, accept_guesses=True, ignore=["args.bnb_4bit_quant_type"])
    assert rows(came)[0]["post_format"] == "int4" and rows(came)[0]["w_format"] is None


@pytest.mark.parametrize("name", ["TheBloke/Llama-2-7B-GPTQ", "x/y-4bit-AWQ"])
def test_a_quantised_model_of_unknown_bits_is_asked_about(tmp_path, name):
    path = put(tmp_path / "results.json", {**RESULTS, "config": {"model_args": f"pretrained={name}"}})
    with pytest.raises(ConfigError, match=r'"(gptq|awq)" = "\?"'):
        import_runs(path, constants={"tokens": "1T", "params": "1B", "loss": "2"}, accept_guesses=True)


def test_gaps_of_a_table_are_within_models_and_sizes_have_units(tmp_path):
    table = """| model | quant | PPL | Size | Ctx size |
|---|---|---|---|---|
| 7B | F16 | 5.90 | 13.0 | 512 |
| 7B | Q4_0 | 6.10 | 3.8 | 512 |
| 13B | Q4_0 | 5.40 | 7.3 GB | 512 |
"""
    frame = read_raw(put(tmp_path / "t.md", table)).frame
    assert frame["gap"].to_list() == [None, pytest.approx(math.log(6.1 / 5.9)), None]
    assert frame["bytes"].to_list() == [None, None, 7.3e9]
    files = table.replace("7B | F", "7b-f16.gguf | F").replace("| 7B | Q", "| 7b-q4.gguf | Q")
    assert read_raw(put(tmp_path / "f.md", files)).frame["gap"].to_list()[1] == pytest.approx(
        math.log(6.1 / 5.9)
    )


def test_a_folder_with_a_table_of_runs_is_that_table(tmp_path):
    put(tmp_path / "runs.csv", "N,D,loss\n1e6,1e9,3.0\n")
    came = import_runs(tmp_path, {"params": "N", "tokens": "D"})
    assert rows(came)[0]["loss"] == 3.0


def test_a_folder_of_two_kinds_asks_which(tmp_path):
    put(tmp_path / "results.json", RESULTS)
    put(
        tmp_path / "checkpoint-1" / "trainer_state.json",
        {"log_history": [{"eval_loss": 3.0}], "global_step": 1},
    )
    with pytest.raises(ConfigError, match="holds runs of trainer and lm-eval; say which: trainer:"):
        import_runs(tmp_path)
    came = import_runs(f"trainer:{tmp_path}", constants={"params": "1M", "tokens": "1B"}, accept_guesses=True)
    assert rows(came)[0]["loss"] == 3.0


# ---- exports


def test_the_export_of_a_wandb_chart(tmp_path):
    text = (
        '"Step","run - a - eval/loss","run - a - eval/loss__MIN","run - a - eval/loss__MAX","b - eval/loss",'
        '"b - eval/loss__MIN","b - eval/loss__MAX"\n"1","3.1","3.1","3.1","","",""\n"2","","","","NaN","3","3"\n'
    )
    path = put(tmp_path / "chart.csv", text)
    came = import_runs(path, constants={"params": "1B", "tokens": "1B"}, accept_guesses=True, diverged=True)
    assert [(row["id"], row["loss"], row["status"]) for row in rows(came)] == [
        ("run - a", 3.1, None),
        ("b", None, "diverged"),
    ]
    assert any("export of a chart" in note for note in came.notes)
    put(tmp_path / "cut.csv", text + '"3","3.0"\n')  # the last step's losses would not be the ends
    with pytest.raises(DataError, match="line 4"):
        import_runs(tmp_path / "cut.csv", constants={"params": "1B", "tokens": "1B"}, accept_guesses=True)


def test_json_of_runs_and_of_steps(tmp_path):
    runs = [
        {"name": "a", "config": {"n_params": 10**6}, "summary": {"eval/loss": 3.0, "seen": 2}, "tags": ["x"]}
    ]
    path = put(tmp_path / "runs.json", runs)
    (row,) = rows(import_runs(path, {"tokens": "summary.seen in M"}, accept_guesses=True))
    assert (row["id"], row["params"], row["tokens"], row["loss"]) == ("a", 1e6, 2e6, 3.0)
    steps = [{"_step": k, "eval/loss": 3 - k / 10, "tokens": 1000 * k} for k in (2, 1)]
    came = import_runs(put(tmp_path / "h.json", steps), constants={"params": "1M"}, accept_guesses=True)
    assert (rows(came)[0]["loss"], rows(came)[0]["tokens"]) == (2.8, 2000)
    lines = put(
        tmp_path / "x.jsonl", '{"params": 1e6, "tokens": 2e7, "loss": 3}\n{"params": 1e6, "tokens": 2e7}\n'
    )
    with pytest.raises(DataError, match="line 2 has no loss"):
        import_runs(lines)
    table = put(tmp_path / "t.json", {"params": [1e6], "tokens": [2e7], "loss": [3.0]})
    assert len(import_runs(table).runs) == 1


def test_half_a_character_is_reported(tmp_path):
    path = put(
        tmp_path / "x.json",
        '[{"params":1,"tokens":2,"loss":3},{"id":"\\ud800","params":1,"tokens":2,"loss":3}]',
    )
    came = import_runs(path, keep_good=True)
    assert len(came.runs) == 1 and [(p.place, p.column) for p in came.problems] == [("record 2", "id")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "not JSON"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.json", "3", "no list of records"),
        ("a.json", "[]", "holds no runs"),
        ("a.json", '{"a": [1], "b": [1, 2]}', "different lengths"),
        ("a.jsonl", '{"a": 1}\n{', "line 2 is not JSON"),
        pytest.param("a.wandb", "not one", "does not begin like", marks=pytest.mark.slow),
        ("a.db", "not one", "as a SQLite file"),
        ("a.md", "# no table", "has no table"),
        ("trainer_state.json", '{"log_history": 3}', "no log_history"),
        ("results.json", '{"results": {}}', "gives"),
    ],
)
def test_a_file_that_is_not_what_it_seems_ends_with_one_sentence(tmp_path, name, text, words):
    if name.endswith(".wandb"):
        pytest.importorskip("wandb")
    with pytest.raises(BitlawError, match=words):
        import_runs(put(tmp_path / name, text), accept_guesses=True)


# ---- runs that their own libraries wrote

MAKERS = {
    "wandb": """
import wandb
for k, code in ((0, 0), (1, 1)):
    run = wandb.init(project="p", name=f"run {k}", config={"n_params": 10**6 * (k + 1), "opt": {"lr": 1e-3},
                     "loss": "mse", "pad": "x" * 40000}, dir=folder, reinit="create_new")
    for step in range(300):
        run.log({"eval/loss": 3.3 - step / 1000 - k, "train_tokens": 1000 * (step + 1)})
    run.finish(exit_code=code)
""",
    "mlflow": """
from mlflow import MlflowClient
for address in (f"sqlite:///{folder}/mlflow.db", f"file://{folder}/files/mlruns"):
    client = MlflowClient(address)
    experiment = client.create_experiment("e: 1")
    for k in range(2):
        run = client.create_run(experiment, run_name=f"run {k}").info.run_id
        client.log_param(run, "n_params", 10**6 * (k + 1))
        client.log_param(run, "note", "two\\nlines")
        for step in (2, 0, 1):
            client.log_metric(run, "eval/loss", 3.3 - step / 10 - k, step=step)
        client.log_metric(run, "train_tokens", 3e5)
        client.set_terminated(run, "FAILED" if k else "FINISHED")
    gone = client.create_run(experiment).info.run_id
    client.delete_run(gone)
    client.create_registered_model("a-model")
""",
    "infinite": """
from mlflow import MlflowClient
client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
run = client.create_run(client.create_experiment("e")).info.run_id
for key, value in (("n_params", 1e6), ("train_tokens", 3e5), ("eval/loss", float("inf"))):
    client.log_metric(run, key, value)
client.set_terminated(run, "FINISHED")
""",
    "resumed": """
import wandb
for part in range(2):
    run = wandb.init(project="p", id="one", resume="allow", config={"n_params": 10**6}, dir=folder)
    for step in range(3):
        run.log({"eval/loss": 3.3 - step / 10 - part, "train_tokens": 1e5 * (step + 1 + 3 * part)})
    run.finish()
""",
    "clash": """
import trackio
run = trackio.init(project="p", name="run", config={"n_params": 10**6, "train_tokens": 3e5, "lr": 0.3}, embed=False)
run.log({"eval/loss": 3.1, "lr": 1e-9})
run.finish()
""",
    "tensorboard": """
from torch.utils.tensorboard import SummaryWriter
for k in range(2):
    with SummaryWriter(f"{folder}/logs/run {k}") as writer:
        for step in range(3):
            writer.add_scalar("eval/loss", 3.25 - step / 4 - k, step)
        writer.add_text("args", '{"seed": 7, "inner": {"lr": 0.5}}')
        writer.add_hparams({"n_params": 1e6 * (k + 1), "recipe": "a"}, {"train_tokens": 3e5})
""",
    "trackio": """
import trackio
for project, name in (("p", "run {}"), ("q", "base")):
    for k in range(2):
        config = {"n_params": 10**6 * (k + 1)}
        run = trackio.init(project=project, name=name.format(k), config=config, embed=False)
        for step in range(3):
            run.log({"eval/loss": 3.3 - step / 10 - k, "train_tokens": 1e5 * (step + 1)})
        run.finish()
""",
    "transformers": """
from transformers.trainer_callback import TrainerState
from pathlib import Path
import json
for k in range(2):
    for step in (900, 1000):
        place = Path(folder) / f"run {k}" / f"checkpoint-{step}"
        place.mkdir(parents=True)
        state = TrainerState(global_step=step, num_input_tokens_seen=300 * step)
        rates = [{"learning_rate": 3e-4, "loss": 9.0, "step": 1}, {"learning_rate": 0.0, "total_flos": 0.0}]
        state.log_history = [*rates, {"eval_loss": 4.1 - step / 1000 - k, "step": step}]
        state.save_to_json(str(place / "trainer_state.json"))
        (place / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", "hidden_size": 64}))
""",
}


def make(name, folder):
    """Runs made by a library in a process of its own: trackers leave threads, sockets and warnings behind."""
    pytest.importorskip({"infinite": "mlflow", "resumed": "wandb", "clash": "trackio"}.get(name, name))
    extra = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "TRACKIO_DIR": str(folder)}
    extra |= {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": ""}
    command = [sys.executable, "-c", f"folder = {str(folder)!r}\n{MAKERS[name]}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **extra}, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]


def same(came, loss=(3.1, 2.1), tokens=3e5):
    found = {row["id"]: row for row in rows(came)}
    found = sorted(found.values(), key=lambda row: -row["loss"])
    assert [row["loss"] for row in found] == pytest.approx(loss, rel=1e-6)
    assert [row["params"] for row in found] == [1e6, 2e6]
    assert [row["tokens"] for row in found] == [tokens, tokens]
    return found


@pytest.mark.slow
def test_runs_that_wandb_wrote_offline(tmp_path):
    make("wandb", tmp_path)
    came = import_runs(tmp_path, accept_guesses=True)
    found = same(came, (3.001, 2.001))
    assert found[0]["learning_rate"] is None  # opt.lr is no name that could be nothing else
    assert any("1 of 2 runs are not finished" in remark for remark in came.proposal.remarks)
    assert "opt.lr" in came.proposal.unused
    (path, other) = sorted(tmp_path.rglob("*.wandb"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 9])  # killed while it wrote
    assert len(import_runs([path, other], accept_guesses=True).runs) == 2
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(DataError, match="a checksum is wrong"):
        import_runs(path, accept_guesses=True)


@pytest.mark.slow
def test_runs_that_mlflow_wrote(tmp_path):
    make("mlflow", tmp_path)
    for source in ("mlflow.db", "files/mlruns", "files"):
        came = import_runs(tmp_path / source, accept_guesses=True)
        same(came)
        assert any("1 of 2 runs are not finished" in remark for remark in came.proposal.remarks)
        raw = read_raw(tmp_path / source)
        assert raw.frame["note"].to_list() == ["two\nlines"] * 2
        assert raw.frame["experiment"].to_list() == ["e: 1"] * 2
    same(import_runs(f"mlflow:sqlite:///{tmp_path}/mlflow.db", accept_guesses=True))


@pytest.mark.slow
def test_an_infinite_loss_in_a_database_of_mlflow_is_one(tmp_path):
    make("infinite", tmp_path)
    with pytest.raises(DataError, match="inf is not finite"):
        import_runs(tmp_path, accept_guesses=True)
    came = import_runs(tmp_path, accept_guesses=True, diverged=True)
    assert came.diverged == 1 and rows(came)[0]["loss"] is None


@pytest.mark.slow
def test_a_run_of_wandb_that_was_resumed_is_one(tmp_path):
    make("resumed", tmp_path)
    assert len(list(tmp_path.rglob("*.wandb"))) == 2
    came = import_runs(tmp_path, accept_guesses=True)
    (row,) = rows(came)
    assert (row["loss"], row["tokens"]) == (pytest.approx(2.1), 6e5)
    assert any("some were resumed, and are joined" in note for note in came.notes)


@pytest.mark.slow
def test_what_is_logged_does_not_replace_what_was_configured(tmp_path):
    make("clash", tmp_path)
    came = import_runs(tmp_path / "p.db", accept_guesses=True)
    assert rows(came)[0]["learning_rate"] == 0.3 and "metrics.lr" in came.proposal.unused


@pytest.mark.slow
def test_runs_on_a_server_of_mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    make("mlflow", tmp_path)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                    break
                except OSError:
                    time.sleep(0.5)
            same(import_runs(f"mlflow:http://127.0.0.1:{port}", accept_guesses=True))
        finally:
            server.terminate()
    with pytest.raises(DataError, match="cannot read MLflow's server"):
        import_runs(f"mlflow:http://127.0.0.1:{port}")


@pytest.mark.slow
def test_runs_that_tensorboard_wrote(tmp_path):
    make("tensorboard", tmp_path)
    came = import_runs(tmp_path / "logs", accept_guesses=True, ignore=["recipe"])
    found = same(came, (2.75, 1.75))
    assert [row["seed"] for row in found] == [7, 7] and {row["id"] for row in found} == {"run 0", "run 1"}
    assert read_raw(tmp_path / "logs").frame["args.inner.lr"].to_list() == [0.5, 0.5]


@pytest.mark.slow
def test_runs_that_trackio_wrote(tmp_path):
    make("trackio", tmp_path)
    one = f"trackio:{tmp_path}/p.db"
    assert {row["id"] for row in same(import_runs(one, accept_guesses=True))} == {"run 0", "run 1"}
    assert (
        len({row["id"] for row in same(import_runs(tmp_path / "q.db", accept_guesses=True))}) == 2
    )  # one name
    assert len(import_runs(tmp_path, accept_guesses=True).runs) == 4


@pytest.mark.slow
def test_states_that_transformers_wrote(tmp_path):
    make("transformers", tmp_path)
    came = import_runs(tmp_path, constants={"params": "1M"}, accept_guesses=True)
    assert [row["loss"] for row in rows(came)] == pytest.approx([3.1, 2.1])
    assert [
        (row["id"], row["tokens"], row["steps"], row["width"], row["w_format"]) for row in rows(came)
    ] == [(f"run {k}", 3e5, 1000, 64, "bf16") for k in range(2)]
    assert {(row["learning_rate"], row["learning_rate_end"]) for row in rows(came)} == {(3e-4, 0.0)}


@pytest.mark.slow
def test_spoilt_files_of_trackers_end_with_our_errors_and_run_nothing(tmp_path):
    """Real files with bytes changed, cut or doubled, read under the interpreter's audit hook."""
    files = []
    for name in ("wandb", "mlflow", "tensorboard", "trackio", "transformers"):
        (tmp_path / name).mkdir()
        make(name, tmp_path / name)
    for pattern in ("*.wandb", "*tfevents*", "mlflow.db", "p.db", "trainer_state.json", "meta.yaml", "loss"):
        files += [path for path in tmp_path.rglob(pattern) if path.is_file()][:1]
    assert len(files) == 7
    files += [put(tmp_path / "t.md", TABLE), put(tmp_path / "results.json", RESULTS)]
    generator = random.Random(0)
    for path in files:
        whole = path.read_bytes()
        place = path
        if path.name in ("meta.yaml", "loss"):
            place = tmp_path / "mlflow" / "files"
        read_raw(place)  # imports what it needs
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(generator.choice((1, 1, 8))):
                data[generator.randrange(len(data))] = generator.randrange(256)
            if generator.random() < 0.3:
                data = data[: generator.randrange(len(data))]
            path.write_bytes(data)
            with watched() as acts:
                try:
                    read_raw(place)
                except BitlawError as error:
                    assert str(error).isprintable()
            assert not acts, (path, acts)
        path.write_bytes(whole)


def test_columns_of_different_kinds_are_put_together(tmp_path):
    a = put(tmp_path / "a.json", [{"params": 1e6, "tokens": 2e7, "loss": 3.0, "seed": 1}])
    b = put(tmp_path / "b.csv", "params,tokens,loss,seed\n1e6,2e7,3,2\n")
    frame = import_runs([a, b, pl.DataFrame({"params": [1], "tokens": [2], "loss": [3]})]).runs.frame
    assert frame["seed"].to_list() == [1, 2, None] and frame["loss"].to_list() == [3.0, 3.0, 3.0]


@pytest.mark.slow
def test_a_project_on_the_server_of_wandb(monkeypatch):
    """W&B's server is not to be had in a test: its client's objects stand in, as its documentation has them."""
    wandb = pytest.importorskip("wandb")

    class Run:
        def __init__(self, k):
            self.id, self.name, self.state = f"id{k}", f"run {k}", "finished"
            self.config = {"n_params": 10**6 * (k + 1), "_wandb": {}, "loss": "mse"}
            self.summary = {"eval/loss": 3.1 - k, "train_tokens": 3e5, "loss": 9.0, "_timestamp": 1.0}

    class Api:
        def __init__(self, timeout):
            pass

        def runs(self, project, per_page):
            assert project == "me/project"
            return [Run(0), Run(1)]

    monkeypatch.setattr(wandb, "Api", Api)
    came = import_runs("wandb:me/project", accept_guesses=True)
    same(came)
    assert "summary.loss" in came.proposal.unused and came.runs.source == "W&B me/project"
