"""Frames on a session's socket: a JSON object and, optionally, raw bytes. Both sides treat the other's as data only.

4 bytes  length of the JSON text, big-endian        4 bytes  length of the bytes
JSON text                                           bytes
"""

from __future__ import annotations

import json
import struct
from typing import Any, cast

MAX_JSON = 4 * 2**20
MAX_BLOB = 64 * 2**20

_HEAD = struct.Struct(">II")


class BadFrame(ValueError):
    """What arrived is not a frame: too large, not JSON, not an object."""


def pack(message: dict[str, Any], blob: bytes = b"") -> bytes:
    """One frame. Raises `BadFrame` when it would be too large for any reader."""
    text = json.dumps(message).encode()
    if len(text) > MAX_JSON or len(blob) > MAX_BLOB:
        raise BadFrame(_too_large(len(text), len(blob)))
    return _HEAD.pack(len(text), len(blob)) + text + blob


class Frames:
    """Cuts a stream of bytes into frames. `feed` raises `BadFrame`, after which the stream is of no use.

    >>> frames = Frames()
    >>> data = pack({"a": 1}, b"xyz")
    >>> frames.feed(data[:5]), frames.feed(data[5:])
    ([], [({'a': 1}, b'xyz')])
    """

    def __init__(self, max_json: int = MAX_JSON, max_blob: int = MAX_BLOB) -> None:
        self.max_json = max_json
        self.max_blob = max_blob
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        """The frames that `data` completes."""
        self._buffer += data
        found: list[tuple[dict[str, Any], bytes]] = []
        while len(self._buffer) >= _HEAD.size:
            text_size, blob_size = _HEAD.unpack_from(self._buffer)
            if text_size > self.max_json or blob_size > self.max_blob:
                raise BadFrame(_too_large(text_size, blob_size))
            end = _HEAD.size + text_size + blob_size
            if len(self._buffer) < end:
                break
            text = bytes(self._buffer[_HEAD.size : _HEAD.size + text_size])
            blob = bytes(self._buffer[_HEAD.size + text_size : end])
            del self._buffer[:end]
            found.append((_object(text), blob))
        return found


def _too_large(text_size: int, blob_size: int) -> str:
    return f"a frame of {text_size} bytes of JSON and {blob_size} others is too large"


def _object(text: bytes) -> dict[str, Any]:
    try:
        value: object = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadFrame("not a JSON object")
    return cast("dict[str, Any]", value)
