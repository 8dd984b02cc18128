"""GPTQ and AWQ beside those of llm-compressor, on one model, one grid, one calibration text. Times are wall seconds.

    pip install llmcompressor            # in an environment with bitlaw[lab]
    python benchmarks/methods.py         # half an hour on one core, most of it training; --folder keeps the model

A Llama of transformers is trained on the standard library's text as bytes. Both sides see the same calibration windows
and are scored on the same held-out windows. Grids are asymmetric, where both sides mean the same by a format, and
symmetric, where llm-compressor's has one level more, with absmax scales and with those of least error.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bitlaw.formats import Recipe
from bitlaw.lab.corpus import Windows, batch, read_corpus, spread_windows
from bitlaw.lab.model.pretrained import Pretrained
from bitlaw.lab.quantize import Setting, clustered_mean, logits, quantize_model, token_losses

SEQ_LEN = 128


def trained(folder: Path, tokens: int) -> LlamaForCausalLM:
    """The model, trained unless it is in the folder."""
    if (folder / "config.json").exists():
        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, max_position_embeddings=SEQ_LEN, **shape))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    corpus, steps = read_corpus(), tokens // (8 * SEQ_LEN)
    for step in range(steps):
        x, y = batch(corpus, 0, step, 8, SEQ_LEN)
        loss = F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 50, 5 * (1 - step / steps))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 500 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder)
    return model.eval()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """What llm-compressor asks for and does not use."""
    vocab = {chr(0x100 + byte): byte for byte in range(256)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocab, unk_token=chr(0x100))))


def theirs(
    model: LlamaForCausalLM, method: str, recipe: Recipe, text: Windows
) -> tuple[LlamaForCausalLM, float]:
    """The model after llm-compressor, and the seconds that took."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot

    weights = QuantizationArgs(
        num_bits=int(recipe.format.bits),
        symmetric=recipe.format.name.startswith("int"),
        strategy=recipe.granularity,
        group_size=recipe.size,
        observer="mse" if recipe.scale == "mse" else "minmax",
    )
    groups = {"all": QuantizationScheme(targets=["Linear"], weights=weights)}
    if method == "gptq":
        from llmcompressor.modifiers.gptq import GPTQModifier

        modifiers = [GPTQModifier(config_groups=groups, ignore=["lm_head"])]
    else:
        from llmcompressor.modifiers.awq import AWQModifier

        modifiers = [AWQModifier(config_groups=groups, ignore=["lm_head"])]
    batches = [{"input_ids": x, "attention_mask": torch.ones_like(x)} for x in text.inputs.split(16)]
    began = time.perf_counter()
    oneshot(
        model=model,
        dataset=DataLoader(batches, batch_size=None),
        recipe=modifiers,
        num_calibration_samples=len(batches),
        processor=byte_tokenizer(),
    )
    return model, time.perf_counter() - began


def main() -> None:
    """Print a row for each method and grid."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, default=Path("benchmark-model"))
    arguments.add_argument("--tokens", type=int, default=4_000_000, help="to train on")
    arguments.add_argument("--bits", default="3,4")
    arguments.add_argument("--methods", default="gptq,awq")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    torch.Tensor.pin_memory = lambda self, *_: (
        self
    )  # which its AWQ calls on machines without a GPU too, and fails
    base = trained(given.folder, given.tokens)
    corpus = read_corpus()
    calibration = spread_windows(corpus.calibration, 32_768, SEQ_LEN)
    evaluation = spread_windows(corpus.evaluation, 131_072, SEQ_LEN)

    def losses(model: LlamaForCausalLM) -> torch.Tensor:
        return token_losses(logits(Pretrained(model), evaluation), evaluation)

    def gap(after: torch.Tensor, before: torch.Tensor) -> str:
        found = clustered_mean(after - before, evaluation.documents)
        return f"{found.value:+.5f} ± {found.se:.5f}"

    before = losses(base)
    print(f"loss {before.mean():.4f}; gaps in nats per token, ± one standard error over documents")
    print(
        f"{'method':6} {'grid':18} {'ours':>21} {'theirs':>21} {'ours - theirs':>21} {'ours s':>7} {'theirs s':>8}"
    )
    for method in given.methods.split(","):
        for bits in map(int, given.bits.split(",")):
            for group in (None, 64):
                for kind in ("uint{}", "int{}", "int{} mse"):
                    setting = Setting.of(method, kind.format(bits), group)
                    began = time.perf_counter()
                    our_model = quantize_model(Pretrained(base), setting.weights, method, calibration.inputs)
                    ours_took = time.perf_counter() - began
                    ours = losses(our_model.model)
                    their_model, theirs_took = theirs(
                        copy.deepcopy(base), method, setting.weights, calibration
                    )
                    other = losses(their_model)
                    print(
                        f"{method:6} {setting.weights!s:18} {gap(ours, before):>21} {gap(other, before):>21} "
                        f"{gap(ours, other):>21} {ours_took:7.2f} {theirs_took:8.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
