"""Where this project keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

from tools.content import BlobStore


def cache_root() -> Path:
    """`$TOOLWEAVE_CACHE`, or the user's cache directory."""
    import platformdirs

    chosen = os.environ.get("TOOLWEAVE_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("toolweave"))


def image_store() -> BlobStore:
    """Where pictures of data sets are kept between runs: `images` in the cache."""
    return BlobStore(cache_root() / "images")
