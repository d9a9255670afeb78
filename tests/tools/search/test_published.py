"""Searches that others published: JSON is read, a pickle is refused before it can run."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tools.content import BlobStore, Image
from tools.errors import ConfigError
from tools.search.hit import Hit, Query, SearchFailed
from tools.search.picture_tool import PictureSearchTool
from tools.search.published import PublishedSearches

RECORDS = {
    "fvqa_train_1": {
        "tool_returned_web_title": ["Elbe Sandstone", "The Bastei bridge", None],
        "cached_images_path": ["thumbs/a.jpg", None, "../outside.jpg"],
    },
    "fvqa_train_2": {"tool_returned_web_title": [], "cached_images_path": []},
}


@pytest.fixture
def published(tmp_path: Path) -> PublishedSearches:
    folder = tmp_path / "cache"
    (folder / "thumbs").mkdir(parents=True)
    (folder / "thumbs" / "a.jpg").write_bytes(b"a picture")
    (tmp_path / "outside.jpg").write_bytes(b"not one of its own")
    (folder / "search_cache.json").write_text(json.dumps(RECORDS))
    return PublishedSearches(folder / "search_cache.json")


def ask(published: PublishedSearches, id: str, k: int = 5) -> tuple[Hit, ...]:
    return asyncio.run(published.of(id).search(Query(kind="by_image", image="any", k=k)))


def test_what_was_found_for_a_question_is_found_again(published: PublishedSearches, tmp_path: Path) -> None:
    assert len(published) == 2 and "fvqa_train_1" in published
    first, second, third = ask(published, "fvqa_train_1")
    assert (first.title, second.title, third.title) == ("Elbe Sandstone", "The Bastei bridge", "")
    assert first.image == str((tmp_path / "cache" / "thumbs" / "a.jpg").resolve())
    assert second.image == third.image == "", "there is none, and one outside of the folder is not looked at"
    assert len(ask(published, "fvqa_train_1", k=1)) == 1
    assert ask(published, "fvqa_train_2") == (), "searched, and nothing was found"
    with pytest.raises(SearchFailed, match="fvqa_train_3") as caught:
        ask(published, "fvqa_train_3")
    assert caught.value.failure == "not_recorded"


def test_the_tool_shows_titles_and_the_thumbnails_that_were_kept(published: PublishedSearches, tmp_path: Path) -> None:
    blobs = BlobStore()
    shown = [blobs.put_image(PIL.Image.new("RGB", (40, 30), "red"))]
    PIL.Image.new("RGB", (20, 10), "blue").save(tmp_path / "cache" / "thumbs" / "a.jpg")
    tool = PictureSearchTool(published.of("fvqa_train_1"), shown, blobs, whole=True, thumbnails=True).tool
    result = asyncio.run(tool.fn())  # pyright: ignore[reportArgumentType]
    assert tool.name == "image_search" and result.text == "1. Elbe Sandstone\n\n2. The Bastei bridge\n3. (no title)\n"
    (picture,) = [part for part in result.content if isinstance(part, Image)]
    assert (picture.width, picture.height) == (20, 10)
    missing = PictureSearchTool(published.of("fvqa_train_3"), shown, blobs, whole=True).tool
    result = asyncio.run(missing.fn())  # pyright: ignore[reportArgumentType]
    assert result.is_error and result.data == {"failure": "not_recorded"}


class Trap:
    """What a pickle can do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["cache.pkl", "cache.PICKLE", "cache.json"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_refused_and_never_run(name: str, protocol: int, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=protocol))
    with pytest.raises(ConfigError, match="is a pickle, and reading one runs code"):
        PublishedSearches(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "holds no searches"),
        ("{}", "holds no searches"),
        ('{"a": 1}', "'a': not a record"),
        ('{"a": {"tool_returned_web_title": ["x"]}}', "'a': not a record"),
        ('{"a": {"tool_returned_web_title": ["x"], "cached_images_path": []}}', "of one length"),
    ],
)
def test_another_form_is_said_to_be_so(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text(content)
    with pytest.raises(ConfigError, match=told):
        PublishedSearches(tmp_path / "cache.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        PublishedSearches(tmp_path / "none.json")
