"""An index served in the form of Search-R1's retriever, so that any trainer that speaks to one can use ours.

`POST /retrieve {"queries": [...], "topk": 3, "return_scores": true}` gives `{"result": [[{"document": {"id",
"contents"}, "score"}, ...], ...]}`, a list a query; without `return_scores` the bare documents. A query without words
has an empty list, which would look like nothing found: `"refused": {"0": "the query holds no words"}`, beside `result`
and only where there is one, says which by its place. `GET /health` says what is served. (Search-R1, arXiv 2503.09516,
its released `retrieval_server.py`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from tools.errors import ConfigError
from tools.search.documents import SearchIndex
from tools.search.hit import SearchFailed
from tools.tool import in_thread

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse

MAX_BODY = 16_000_000
"""Bytes of a request."""

MAX_QUERIES = 8192
"""Of a request: Search-R1 sends those of a whole step at once, 512 tasks of 5 attempts each."""


class Asked(BaseModel):
    """A request."""

    model_config = ConfigDict(strict=True)

    queries: list[str] = Field(max_length=MAX_QUERIES)
    topk: int | None = Field(default=None, ge=1, le=100)
    return_scores: bool = False


def app_of(index: SearchIndex, topk: int = 3) -> Starlette:
    """The ASGI application that answers from `index`; `topk` where a request names none."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def retrieve(request: Request) -> JSONResponse:
        try:
            asked = Asked.model_validate_json(await _body(request))
        except ValueError as error:  # pydantic's is one
            return JSONResponse({"error": str(error)}, status_code=422)
        count = asked.topk or topk
        return JSONResponse(await in_thread(lambda: _reply(index, asked.queries, count, asked.return_scores)))

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"index": index.path.name, "documents": len(index)})

    return Starlette(routes=[Route("/retrieve", retrieve, methods=["POST"]), Route("/health", health)])


def serve(index: SearchIndex, host: str = "127.0.0.1", port: int = 8000, topk: int = 3) -> None:
    """Serve until interrupted. Raises `ConfigError` where uvicorn is missing."""
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError("serving needs uvicorn and starlette", hint="pip install 'toolweave[search]'") from error
    uvicorn.run(app_of(index, topk), host=host, port=port, log_level="warning", access_log=False)


async def _body(request: Request) -> bytes:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise ValueError(f"the request is larger than {MAX_BODY:,} bytes")
    return data


def _reply(index: SearchIndex, queries: Sequence[str], topk: int, scores: bool) -> dict[str, Any]:
    result: list[list[dict[str, Any]]] = []
    refused: dict[str, str] = {}
    for place, query in enumerate(queries):
        try:
            result.append(_found(index, query, topk, scores))
        except SearchFailed as error:
            if error.failure != "refused":
                raise
            result.append([])  # one of many: the others are answered
            refused[str(place)] = str(error)
    return {"result": result, "refused": refused} if refused else {"result": result}


def _found(index: SearchIndex, query: str, topk: int, scores: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for hit in index.search(query, topk):
        document = {"id": hit.info["id"], "contents": f'"{hit.title}"\n{hit.snippet}'}
        found.append({"document": document, "score": hit.score} if scores else document)
    return found
