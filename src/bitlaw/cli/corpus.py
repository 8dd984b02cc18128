"""The verbs that fetch corpora and look into them."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import CORPUS, JsonFlag, print_json

corpus_app = typer.Typer(no_args_is_help=True, help="Text to train on: fetch corpora, and look into them.")
SourceArgument = Annotated[str | None, typer.Argument(help=CORPUS)]


@corpus_app.command("list")
def corpus_list(json_: JsonFlag = False) -> None:
    """List the corpora that `get` can fetch, and whether they are here."""
    from ..errors import DataError
    from ..lab.corpus.packages import RECIPES, built

    lines = []
    for name, recipe in RECIPES.items():
        try:
            here = bool(built(name))
        except DataError:
            here = False
        lines.append({"name": name, "here": here, "packages": len(recipe.parts), "meaning": recipe.meaning})
    if json_:
        print_json(lines)
        return
    for line in lines:
        print(f"{line['name']:10} {'here' if line['here'] else '':5} {line['meaning']}")


@corpus_app.command("get")
def corpus_get(
    name: Annotated[str, typer.Argument(help="See `bitlaw corpus list`.")], json_: JsonFlag = False
) -> None:
    """Fetch a corpus from Debian packages into the cache, `~/.cache/bitlaw` or `$BITLAW_CACHE`.

    Then `package:NAME` names it: `bitlaw study quick --corpus package:english`
    """
    from ..lab.corpus.packages import RECIPES, get
    from ..study import Progress
    from .progress import Reporter

    with Reporter() as reporter:
        total = len(RECIPES[name].parts) if name in RECIPES else 1
        path = get(name, lambda done, package: reporter(Progress(done, total, package)))
    if json_:
        print_json({"name": name, "file": str(path)})
    else:
        print(f"{name}: {path.stat().st_size / 1e6:.1f} MB, compressed. Name it as package:{name}")


@corpus_app.command("show")
def corpus_show(
    source: SourceArgument = None,
    tokenizer: Annotated[str, typer.Option(help="bytes, or bpe:512 for 512 tokens.")] = "bytes",
    json_: JsonFlag = False,
) -> None:
    """Say what a corpus holds: documents, tokens and hash of each side, and its first lines.

    * `bitlaw corpus show notes.jsonl#body --tokenizer bpe:1024`
    """
    from ..lab.corpus import read_corpus

    corpus = read_corpus(source, tokenizer)
    sides = [
        {"side": name, "documents": len(text.starts), "bytes": text.size, "tokens": len(text.tokens)}
        | {"sha256": text.sha256}
        for name, text in corpus.sides.items()
    ]
    start = corpus.train.tokens[:400]
    text = corpus.coder.decode(start.tolist()) if corpus.coder else start.tobytes().decode("utf-8", "replace")
    first = text.splitlines()[:5]
    if json_:
        about = {"name": corpus.name, "sha256": corpus.sha256, "copies": corpus.copies}
        print_json({**about, "tokenizer": corpus.tokenizer, "sides": sides, "first_lines": first})
        return
    print(f"{corpus.name}, in tokens of {corpus.tokenizer}; SHA-256 {corpus.sha256[:16]}")
    print(f"{corpus.copies:,} copies of other documents were left out\n")
    print(f"{'':12} {'documents':>10} {'bytes':>14} {'tokens':>14}  SHA-256")
    for side in sides:
        counts = f"{side['documents']:>10,} {side['bytes']:>14,} {side['tokens']:>14,}"
        print(f"{side['side']:12} {counts}  {side['sha256'][:16]}")
    print("\n" + "\n".join(line[:100] for line in first))
