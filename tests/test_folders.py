"""Models from folders: real Hugging Face models and ours, through the whole command; and folders that lie."""

from __future__ import annotations

import copy
import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bitlaw import ConfigError, DataError, LabError, read_runs
from bitlaw.cli.main import app
from bitlaw.formats import Recipe, Scheme
from bitlaw.lab.corpus import Text
from bitlaw.lab.model import Loaded, Transformer, load_model, save_model
from bitlaw.lab.precision import apply_scheme, fake_quantize
from bitlaw.lab.quantize import quantize_model
from bitlaw.shapes import Shape

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
torch.set_num_threads(1)
REAL = Path(os.__file__).read_text()

SHAPE = Shape(width=32, depth=2, heads=2, ffn=48)
SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
FEWER_HEADS = {"num_key_value_heads": 1}
FAMILIES = {
    "llama": FEWER_HEADS,
    "qwen2": {**FEWER_HEADS, "tie_word_embeddings": True},
    "qwen3": {**FEWER_HEADS, "head_dim": 16},
    "olmo": {**FEWER_HEADS, "pad_token_id": 0},
    "olmo2": {**FEWER_HEADS, "pad_token_id": 0},
    "gpt_neox": {},
}
TOKENS = torch.randint(0, 320, (4, 24), generator=torch.Generator().manual_seed(0))


def make_theirs(folder, family="llama"):
    """A model folder as transformers writes it, with a tokenizer trained on real text."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **SIZES, **FAMILIES[family])
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([REAL], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def make_ours(folder, scheme="16"):
    model = apply_scheme(Transformer(SHAPE, seed=3), Scheme.parse(scheme))
    row = {"id": "cell", "trunk": "t", "params": 1e4, "count": "non_embedding", "tokens": 1e6}
    save_model(Loaded("ours", "", model, None, 256, 32, Scheme.parse(scheme), row), folder)
    return model


def write_text(folder):
    for k in range(300):
        (folder / f"{k}.txt").write_text(f"document {k}: " + REAL[k * 90 :][:900])


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_transformers_are_read_quantised_and_saved(family, tmp_path):
    theirs = make_theirs(tmp_path / "model", family)
    loaded = load_model(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(loaded.model(TOKENS), theirs(TOKENS).logits)
        low = quantize_model(loaded.model, Recipe.parse("int4 channel"), "gptq", TOKENS)
        scheme = Scheme.parse("a=int8 token, kv=int4 token")
        apply_scheme(low, scheme)
        save_model(replace(loaded, model=low, scheme=scheme), tmp_path / "low")
        again = load_model(tmp_path / "low")
        assert torch.equal(again.model(TOKENS), low(TOKENS))
        assert not torch.equal(low(TOKENS), loaded.model(TOKENS))
    assert again.scheme == scheme


def test_a_quantised_cache_is_what_attention_sees(tmp_path):
    """Against keys and values rounded by hand between the projections and attention."""
    theirs = make_theirs(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    recipe = Recipe.parse("int4 token")
    apply_scheme(loaded.model, Scheme.parse("kv=int4 token"))
    plain = torch.nn.functional.scaled_dot_product_attention

    def rounded(q, k, v, *rest, **named):
        return plain(q, fake_quantize(k, recipe), fake_quantize(v, recipe), *rest, **named)

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        found = loaded.model(TOKENS)
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", rounded)
        assert torch.allclose(found, theirs(TOKENS).logits, atol=1e-6)


def test_calibration_sees_the_keys_of_weights_that_were_quantised_before(tmp_path):
    """A block is run twice on what enters it; a cache that kept the first time's keys would be read the second."""
    make_theirs(tmp_path / "model")
    model = load_model(tmp_path / "model").model
    low = apply_scheme(copy.deepcopy(model), Scheme.parse("kv=int16 token"))  # as good as none
    for block in (list(model.blocks)[1], list(low.blocks)[1]):
        block.self_attn.k_proj.weight.data *= 40
    recipe = Recipe.parse("int3 channel")
    with torch.no_grad():
        plain, cached = (quantize_model(m, recipe, "gptq", TOKENS)(TOKENS) for m in (model, low))
    assert torch.allclose(plain, cached, atol=0.01 * float(plain.std()))


def test_a_full_disk_is_one_sentence(tmp_path):
    """As when a quota ends: a limit on the size of files, in a process of its own."""
    code = (
        "import resource, signal, sys\nfrom bitlaw import Scheme\nfrom bitlaw.errors import DataError\n"
        "from bitlaw.lab.model import Loaded, Transformer, save_model\nfrom bitlaw.shapes import Shape\n"
        "model = Transformer(Shape(width=32, depth=2, heads=2, ffn=48))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    save_model(Loaded('m', '', model, None, 256, 32, Scheme(), {}), sys.argv[1])\n"
        "except DataError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
    assert said.stdout.startswith(f"cannot write {tmp_path / 'out'}: "), said.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_on_a_folder_of_transformers(tmp_path):
    make_theirs(tmp_path / "model")
    write_text(tmp_path)
    command = ["quantize", tmp_path / "model", "--text", tmp_path, "--formats", "int3,int2 tensor,nvfp4"]
    command += ["--method", "rtn,gptq,awq", "--group", 16, "--store", tmp_path / "rows.sqlite"]
    command += ["--eval-tokens", 2048, "--calibration-tokens", 1024, "--save", tmp_path / "out"]
    result = run(*command, "--tokens", "2B")
    assert result.exit_code == 0, result.output
    frame = read_runs(tmp_path / "rows.sqlite").frame
    base, posts = frame.row(0, named=True), frame.slice(1)
    assert posts.height == 9
    assert set(posts["parent"]) == {base["id"]}
    assert set(posts["tokens"]) == {2e9}
    assert (posts["gap"] - (posts["loss"] - base["loss"])).abs().max() < 1e-9
    assert (posts["kl"] > 0).all() and (posts["gap_se"] > 0).all() and (posts["eval_clusters"] >= 8).all()
    by_id = {row["post_format"]: row["bpw"] for row in posts.to_dicts() if row["method"] == "rtn"}
    assert by_id["int3"] == 4.0  # 3 bits and a 16-bit scale for each 16
    assert 4.5 < by_id["nvfp4"] < 4.6
    for row in posts.to_dicts():  # what was saved scores the same to the last bit
        options = ["--formats", "bf16", "--method", "rtn", "--eval-tokens", 2048, "--json"]
        options += ["--text", tmp_path, "--store", tmp_path / "again.sqlite"]
        again = run("quantize", tmp_path / "out" / row["id"], *options)
        assert json.loads(again.stdout)[0]["loss"] == row["loss"]
    second = run(*command, "--tokens", "2B")
    assert second.exit_code == 0
    assert read_runs(tmp_path / "rows.sqlite").frame.equals(frame)


def test_our_folders_come_back_to_the_bit_and_keep_what_is_known(tmp_path):
    model = make_ours(tmp_path / "ours", "w4a8")
    loaded = load_model(tmp_path / "ours")
    tokens = TOKENS % 256
    with torch.no_grad():
        assert torch.equal(loaded.model(tokens), model(tokens))
    assert (loaded.row["trunk"], loaded.seq_len, loaded.scheme.name) == ("t", 32, "w4a8")
    with pytest.raises(ConfigError, match="exists already"):
        make_ours(tmp_path / "ours")


def test_a_tokenizer_does_not_cut_or_fill_documents(tmp_path):
    make_theirs(tmp_path / "model")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    plain = len(tokenizer.encode(REAL).ids)
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=99999)
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    text = Text(np.frombuffer(REAL.encode(), np.uint8), np.zeros(1, np.int64)).encode(
        load_model(tmp_path / "model").tokenizer
    )
    assert len(text.tokens) == plain


def test_quantising_what_was_quantised(tmp_path):
    """Rows of a folder that was saved forget the earlier gap; what rounds while it runs is not changed again."""
    write_text(tmp_path)
    make_theirs(tmp_path / "model")
    common = ["--text", tmp_path, "--eval-tokens", 1024, "--method", "rtn"]
    first = [*common, "--formats", "int8", "--kv", "int8 token", "--save", tmp_path / "out"]
    assert run("quantize", tmp_path / "model", *first, "--store", tmp_path / "a.sqlite").exit_code == 0
    (folder,) = (tmp_path / "out").iterdir()
    second = run("quantize", folder, *common, "--formats", "int4", "--store", tmp_path / "b.sqlite",
                 "--save", tmp_path / "again")  # fmt: skip
    assert second.exit_code == 0, second.output
    base, low = read_runs(tmp_path / "b.sqlite").frame.to_dicts()
    assert base["gap"] is None and base["method"] is None and base["post_format"] == "int8"
    assert low["parent"] == base["id"] and low["gap"] is not None
    (folder_4,) = (tmp_path / "again").iterdir()
    assert load_model(folder_4).scheme.name == "kv=int8 token"
    third = run(
        "quantize",
        folder,
        *common,
        "--formats",
        "int4",
        "--kv",
        "int4 token",
        "--store",
        tmp_path / "b.sqlite",
    )
    assert "while it runs already" in str(third.exception)


def test_a_setting_that_cannot_be_leaves_the_others(tmp_path):
    """Groups of 40 do not divide its rows, and have no mean; the next is tried all the same, the first again later."""
    write_text(tmp_path)
    make_ours(tmp_path / "ours")
    command = ["quantize", tmp_path / "ours", "--text", tmp_path, "--eval-tokens", 1024, "--method", "rtn"]
    command += ["--formats", "ternary,int4", "--group", 40, "--store", tmp_path / "rows.sqlite"]
    for _ in range(2):
        out = run(*command)
        assert out.exit_code == 1
        assert (
            "ternary group40 absmean by rtn failed: ConfigError: 'ternary group40 absmean' does not divide"
            in out.stderr
        )
        assert read_runs(tmp_path / "rows.sqlite").frame["post_format"].to_list() == [None, "int4"]


def test_a_model_trained_with_rounded_gradients_rounds_nothing_while_it_runs(tmp_path):
    write_text(tmp_path)
    make_ours(tmp_path / "ours", "w=int4, grad_a=e5m2")
    out = run("quantize", tmp_path / "ours", "--text", tmp_path, "--eval-tokens", 1024, "--method", "rtn",
              "--formats", "int3", "--activations", "int8 token", "--store", tmp_path / "rows.sqlite",
              "--save", tmp_path / "out")  # fmt: skip
    assert out.exit_code == 0, out.output
    (folder,) = (tmp_path / "out").iterdir()
    assert load_model(folder).scheme.name == "a=int8 token"


def test_saving_later_and_saving_twice(tmp_path):
    write_text(tmp_path)
    make_ours(tmp_path / "ours")
    command = ["quantize", tmp_path / "ours", "--text", tmp_path, "--eval-tokens", 1024, "--method", "rtn"]
    command += ["--formats", "int4,int3 mse"]
    assert run(*command, "--store", tmp_path / "a.sqlite").exit_code == 0
    frame = read_runs(tmp_path / "a.sqlite").frame
    assert frame["post_recipe"].to_list() == [None, "int4 channel", "int3 channel mse"]
    for store in ("a.sqlite", "a.sqlite", "b.sqlite"):
        result = run(*command, "--store", tmp_path / store, "--save", tmp_path / "out")
        assert result.exit_code == 0, result.output
        assert len(list((tmp_path / "out").iterdir())) == 2
    assert read_runs(tmp_path / "a.sqlite").frame.equals(frame)
    assert read_runs(tmp_path / "b.sqlite").frame["loss"].equals(frame["loss"])


def test_weights_trained_in_low_precision_are_quantised_as_they_multiply(tmp_path):
    model = apply_scheme(Transformer(SHAPE, seed=3), Scheme.parse("w4"))
    low = quantize_model(model, Recipe.parse("int8 channel"))
    linear = low.blocks[0].attention.qkv
    effective = fake_quantize(model.blocks[0].attention.qkv.weight, Recipe.parse("int4 channel"))
    assert torch.equal(linear.weight, fake_quantize(effective, Recipe.parse("int8 channel")))
    assert isinstance(linear.quantize_weight, torch.nn.Identity)


# ---- folders that lie


def edit(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**data, **changes}.items() if v is not None}))


def drop_manifest(folder):
    (folder / "MANIFEST.json").unlink()


def flip(path, place, bit=3):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1 << bit
    path.write_bytes(raw)


def lie_ours(folder, **changes):
    drop_manifest(folder)
    edit(folder / "config.json", **changes)


def index(folder, name):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))


MARK = "somebody-was-here"


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil(folder.parent / MARK)}, folder / "pytorch_model.bin")


def header(folder, text):
    raw = text.encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)


OURS = {
    "truncated": (lambda f: os.truncate(f / "model.safetensors", 5000), "SHA-256"),
    "truncated, no manifest": (
        lambda f: (drop_manifest(f), os.truncate(f / "model.safetensors", 5000)),
        "damaged",
    ),
    "a flipped bit in a tensor": (lambda f: flip(f / "model.safetensors", -77), "SHA-256"),
    "a flipped bit in the header": (
        lambda f: (drop_manifest(f), flip(f / "model.safetensors", 3)),
        "damaged",
    ),
    "a manifest that leads out": (
        lambda f: (f / "MANIFEST.json").write_text(json.dumps({"../ours/config.json": "0"})),
        "manifest names",
    ),
    "absurd width": (lambda f: lie_ours(f, width=2**30), "not of one model"),
    "absurd depth": (lambda f: lie_ours(f, depth=2**30), "not of one model"),
    "negative": (lambda f: lie_ours(f, ffn=-1), "whole numbers"),
    "true": (lambda f: lie_ours(f, heads=True), "whole numbers"),
    "another kind": (lambda f: lie_ours(f, model_type="mamba"), "mamba"),
    "no kind": (lambda f: lie_ours(f, model_type=None), "type"),
    "an unknown scheme": (
        lambda f: (drop_manifest(f), (f / "bitlaw.json").write_text('{"scheme": "w99"}')),
        "w99|99",
    ),
    "a list for a config": (
        lambda f: (drop_manifest(f), (f / "config.json").write_text("[1]")),
        "no JSON object",
    ),
    "deep JSON": (lambda f: (drop_manifest(f), (f / "config.json").write_text("[" * 10**5)), "JSON"),
}
THEIRS = {
    "pickle": (pickled, "pickles"),
    "names that lead out": (lambda f: index(f, "../model/weights.safetensors"), "beside it"),
    "absolute names": (lambda f: index(f, "/etc/passwd"), "beside it"),
    "two sets of weights": (
        lambda f: (
            shutil.copy(f / "model.safetensors", f / "other.safetensors"),
            (f / "model.safetensors.index.json").write_text('{"weight_map": {"x": "other.safetensors"}}'),
        ),
        "remove what is not meant",
    ),
    "windows of nothing": (
        lambda f: edit(f / "config.json", max_position_embeddings=0),
        "predicts nothing|cannot read",
    ),
    "absurd groups": (
        lambda f: (f / "bitlaw.json").write_text('{"scheme": "a=int4 group1048576"}'),
        "wider than the model",
    ),
    "a missing shard": (lambda f: index(f, "model-00002.safetensors"), "not whole"),
    "code of its own": (lambda f: edit(f / "config.json", auto_map={"AutoModel": "x.Y"}), "run code"),
    "quantised already": (
        lambda f: edit(f / "config.json", quantization_config={"quant_method": "gptq"}),
        "quantised already",
    ),
    "absurd layers": (lambda f: edit(f / "config.json", num_hidden_layers=10**9), "layers"),
    "absurd width": (lambda f: edit(f / "config.json", hidden_size=2**24), "not of one model"),
    "absurd vocabulary": (lambda f: edit(f / "config.json", vocab_size=2**40), "not of one model"),
    "zero heads": (lambda f: edit(f / "config.json", num_attention_heads=0), "cannot read"),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "merge"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"a": 1}'), "cannot read"),
    "absurd shapes in the header": (
        lambda f: header(f, '{"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
        "damaged",
    ),
    "an absurd header": (
        lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}"),
        "damaged",
    ),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
    "overlapping tensors": (
        lambda f: header(
            f,
            '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            '"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        ),
        "damaged",
    ),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    make_ours(folder / "ours")
    make_theirs(folder / "model")
    return folder


@pytest.mark.parametrize(
    ("kind", "case"), [("ours", case) for case in OURS] + [("model", case) for case in THEIRS]
)
def test_folders_that_lie_are_refused(kind, case, both, tmp_path):
    harm, words = (OURS if kind == "ours" else THEIRS)[case]
    shutil.copytree(both / kind, tmp_path / kind)
    harm(tmp_path / kind)
    with pytest.raises((DataError, ConfigError), match=words):
        load_model(tmp_path / kind)
    assert not (tmp_path / MARK).exists()


def test_any_flipped_bit_of_our_folders_is_seen(both, tmp_path):
    """Every file, at random places."""
    generator = torch.Generator().manual_seed(0)
    for path in sorted((both / "ours").iterdir()):
        for _ in range(20):
            shutil.copytree(both / "ours", tmp_path / "ours", dirs_exist_ok=True)
            place = int(torch.randint(path.stat().st_size, (), generator=generator))
            flip(tmp_path / "ours" / path.name, place, int(torch.randint(8, (), generator=generator)))
            with pytest.raises(DataError):
                load_model(tmp_path / "ours")


def test_a_kernel_named_in_a_config_is_not_fetched(both, tmp_path):
    shutil.copytree(both / "model", tmp_path / "model")
    edit(
        tmp_path / "model" / "config.json", _attn_implementation="strangers/kernel", attn_implementation="x/y"
    )
    model = load_model(tmp_path / "model").model
    assert model.model.config._attn_implementation == "sdpa"


def test_what_cannot_be_read_says_why(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no folder"):
        load_model(tmp_path / "absent")
    with pytest.raises(DataError, match="config.json"):
        load_model(tmp_path)
    make_theirs(tmp_path / "model")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(LabError, match="pip install"):
        load_model(tmp_path / "model")


def test_mistakes_on_the_command_line(both, tmp_path):
    store = ["--store", tmp_path / "rows.sqlite"]
    for arguments, words in (
        ([tmp_path / "absent"], "no folder"),
        ([both / "ours", "--method", "gptp"], "gptq"),
        ([both / "ours", "--formats", "int99"], "not 99"),
        ([both / "ours", "--eval-tokens", "999999999"], "fewer tokens"),
        ([both / "ours", "--eval-tokens", "40"], "two windows"),
        ([both / "ours", "--device", "gpu"], "device 'gpu'"),
        ([both / "ours", "--formats", "int4 learned"], "nothing is learned"),
    ):
        result = run("quantize", *arguments, *store)
        assert isinstance(result.exception, (DataError, ConfigError))
        assert words in str(result.exception)
