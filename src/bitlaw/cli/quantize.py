"""The verb that quantises a trained model and says what it cost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, DataError
from .common import CorpusOption, JsonFlag, print_json

if TYPE_CHECKING:
    from ..lab.corpus import Corpus
    from ..lab.tasks import Judge, Judged

QUESTIONS = 500  # of cloze


def quantize(
    path: Annotated[str, typer.Argument(help="Folder of a model: config.json and safetensors.")],
    formats: Annotated[
        str, typer.Option(help="Of the weights: recipes with commas between, as `bitlaw formats` knows them.")
    ] = "int8,int4 mse,int3 mse",
    method: Annotated[str, typer.Option(help="rtn, gptq, awq, or several with commas between.")] = "rtn,gptq",
    group: Annotated[
        int | None, typer.Option(help="Weights that share a scale; default: one scale an output.")
    ] = None,
    activations: Annotated[str, typer.Option(help='Recipe of activations, like "int8 token".')] = "bf16",
    kv: Annotated[str, typer.Option(help='Recipe of keys and values, like "int4 token".')] = "bf16",
    text: CorpusOption = None,
    eval_tokens: Annotated[int, typer.Option(min=2, help="Tokens that losses are of.")] = 65_536,
    calibration_tokens: Annotated[
        int, typer.Option(min=2, help="Tokens that gptq and awq look at.")
    ] = 32_768,
    tokens: Annotated[
        str | None,
        typer.Option(help="That the model was trained on, like 2T, where its folder does not say."),
    ] = None,
    store: Annotated[Path, typer.Option(help="Where rows are kept as they come.")] = Path("quantized.sqlite"),
    save: Annotated[
        Path | None, typer.Option(help="Keep every quantised model too, each in a folder below this one.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Judge every model on tasks too: cloze, or a folder of lm-evaluation-harness tasks."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Questions of each task; default: all, 500 of cloze.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Folder for the results of single tasks, as JSON.")
    ] = None,
    trust_tasks: Annotated[
        bool, typer.Option("--trust-tasks", help="Let files of tasks run code of their own, and fetch data.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json_: JsonFlag = False,
) -> None:
    """Quantise a trained model in many ways, and measure what each costs on the same held-out text.

    Models of ours (`keep_models` in a study) and Hugging Face folders of the Llama, Qwen, OLMo and GPT-NeoX
    families. The gap is the loss after minus the loss before, in nats per token; its standard error is over documents,
    or over windows where the text has fewer than eight.

    * `bitlaw quantize ./model --method gptq --formats int3,int4,nvfp4 --group 128`
    * `bitlaw quantize ./model --formats "int4 group64 mse" --activations "int8 token" --save ./quantized`
    * `bitlaw quantize ./model --tasks cloze`: `error` of each row is then of these; several models into one --store are
      what `bitlaw downstream` reads
    """
    from ..lab.corpus import read_corpus
    from ..lab.quantize import Setting
    from ..lab.sweep import After, quantize_folder
    from ..runs import Store
    from ..study import Progress
    from ..units import parse_quantity
    from .progress import Reporter

    settings = {
        setting.name: setting
        for recipe in formats.split(",")
        for way in method.split(",")
        for setting in [Setting.of(way.strip(), recipe, group, activations, kv)]
    }
    after = After(tuple(settings.values()), calibration_tokens, save)
    trained = None if tokens is None else parse_quantity(tokens, "tokens")
    if tasks is None and (limit is not None or results is not None or trust_tasks):
        raise ConfigError(
            "--limit, --results and --trust-tasks are of tasks; add --tasks cloze, or a folder of them"
        )
    corpus = read_corpus(text)
    judge = None if tasks is None else _judge(tasks, corpus, limit, trust_tasks)
    kept = Store(store)
    rows: list[dict[str, Any]] = []
    with Reporter() as reporter:
        try:
            found = quantize_folder(
                path,
                corpus,
                after,
                eval_tokens=eval_tokens,
                tokens=trained,
                device=device,
                done=kept.ids(),
                judge=judge,
                on_judged=lambda row, judged: None if results is None else _keep(results, row, judged),
                on_setting=lambda done, name: reporter(Progress(done, len(after.settings), name)),
            )
            for row in found:
                if row["status"] != "failed":  # the next time it may not
                    kept.add([row])
                rows.append(row)
        except KeyboardInterrupt:
            reporter.close()
            print(f"Stopped. Rows so far are in {store}; run the same command to go on.", file=sys.stderr)
            raise typer.Exit(130) from None
    base = rows[0]["id"]
    asked = {base, *(after.row_id(base, setting) for setting in after.settings)}
    table = [row for row in kept.runs().frame.to_dicts() if row["id"] in asked]
    kept.close()
    if json_:
        print_json([{key: value for key, value in row.items() if value is not None} for row in table])
    else:
        _show(table, judge is not None)
        print(f"Rows: {store}" + (f"   Models: {save}" if save else ""))
    failed = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        print(f"{row['post_recipe']} by {row['method']} failed: {row['reason']}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _judge(tasks: str, corpus: Corpus, limit: int | None, trust: bool) -> Judge:
    """What models are judged on."""
    from ..lab.tasks import Cloze, Harness

    if tasks != "cloze":
        harness = Harness(Path(tasks), trust, limit)
        harness.check()  # before a model is read
        return harness
    if trust:
        raise ConfigError("--trust-tasks is for a folder of tasks; cloze runs nothing")
    return Cloze.of(corpus.evaluation, corpus.calibration, limit or QUESTIONS)


def _keep(folder: Path, row: str, judged: Judged) -> None:
    """Write what a model came to on each task, as lm-evaluation-harness does."""
    from ..files import whole

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}") from error
    content = {"results": judged.results, "config": {"model": "bitlaw"}, "model_name": row}
    with whole(folder / f"results_{row}.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def _show(rows: list[dict[str, Any]], judged: bool) -> None:
    """Print what each way cost."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    base, *made = rows
    read = f"{base['eval_tokens']:,} tokens of {base['eval_clusters']} documents or windows"
    print(f"{base['id']}: loss {base['loss']:.4f} ± {base['loss_se']:.4f} nats per token on {read}")
    if judged and base["error"] is not None:
        print(f"error on tasks: {base['error']:.1%}, by guessing {1 - base['chance']:.1%}")
    for part, name in (("post_a", "activations"), ("post_kv", "keys and values")):
        if made and made[0][f"{part}_format"] is not None:
            print(f"with {name} in {made[0][f'{part}_recipe']} too, whatever the weights are in")
    table = Table(box=None)
    for name in ("weights", "method", "loss", "gap", "KL", *(["error"] if judged else []), "bpw", "MB", "s"):
        left = name in ("weights", "method")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "weights")
    for row in made:
        cells = [escape(row["post_recipe"]), row["method"]]
        if row["status"] == "ok":
            cells += [f"{row['loss']:.4f}", f"{row['gap']:+.4f} ± {row['gap_se']:.4f}", f"{row['kl']:.2g}"]
        else:
            cells += [row["status"], "", ""]
        if judged:
            cells.append("" if row["error"] is None else f"{row['error']:.1%}")
        table.add_row(*cells, f"{row['bpw']:.3f}", f"{row['bytes'] / 1e6:.3g}", f"{row['seconds']:.1f}")
    Console().print(table)
    print(
        "gap: loss after minus before, paired, ± one standard error over documents; KL from before, in nats"
    )
