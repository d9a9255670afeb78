"""`evals view`: the page of one run or two, served on loopback; an episode is read when it is opened."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, final
from urllib.parse import parse_qs, urlsplit

from envs.log import blobs_beside
from evals.decode import decoder_of_run
from evals.index import Entry, latest_entries, read_episode, read_index
from evals.report import Decode, PageBuilder, about_runs, compared, header, page_text, run_facts
from evals.run_folder import RunFolder
from evals.show import metric_of, natural_key
from tools.errors import ConfigError

_LISTED = (
    *("id", "repeat", "name", "score", "stop", "truncated", "failure", "target", "answer", "extracted", "category"),
    *("turns", "calls", "callErrors", "tools", "tokens", "cost", "seconds"),
)
"""What the list and the table show of an episode; the rest comes with it when it is opened."""

_LOCAL = ("127.0.0.1", "localhost", "[::1]")


@final
class Viewer:
    """A local server for the page: `with Viewer([folder]) as viewer: print(viewer.url)`.

    It listens on 127.0.0.1 only, answers requests addressed to it by that name only (so that a page of somebody else's
    cannot read a run through a name that points here), and changes nothing.
    """

    def __init__(self, folders: Sequence[RunFolder], port: int = 0) -> None:
        """Take the port; 0 takes a free one. Raises `ConfigError` when it is taken."""
        self.runs = [_Run(folder) for folder in folders]
        outer = self

        class Handler(_Handler):
            viewer = outer

        try:
            self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used: {error.strerror}", hint="--port 0 takes a free one"
            ) from error
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/"
        self._thread: threading.Thread | None = None

    def page(self) -> str:
        """The page with the headers of every episode, as the log is now."""
        rows: list[list[Any]] = []
        for number, run in enumerate(self.runs):
            run.refresh()
            for offset, entry in run.entries.items():
                listed = header(entry.sample, run.metric)
                rows.append([*(listed[key] for key in _LISTED), number, offset])
        about = about_runs([run_facts(run.folder) for run in self.runs])
        note = f"{len(rows)} episodes, read when you open them. Reload to see what is new."
        page = {**about, "comparison": compared([run.folder for run in self.runs]), "note": note}
        episodes = {"keys": [*_LISTED, "run", "number"], "rows": rows}  # names once: a third of the bytes
        return page_text({**page, "episodes": episodes, "images": {}}, live=True)

    def episode(self, run: int, offset: int) -> dict[str, Any] | None:
        """The episode whose line begins at `offset`, with its images; None where there is none."""
        if not (0 <= run < len(self.runs) and offset in self.runs[run].entries):
            return None
        return self.runs[run].episode(offset)

    def serve(self) -> None:
        """Serve until interrupted."""
        try:
            self._http.serve_forever(poll_interval=0.2)
        finally:
            self._http.server_close()

    def __enter__(self) -> Viewer:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        if self._thread is not None:
            self._thread.join()


class _Run:
    """What is kept of one run between requests."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.entries: dict[int, Entry] = {}
        """By where they begin: a log only grows, so that this stays true for a page that was loaded before."""
        self.metric = metric_of(folder)
        self._size = -1
        self._decode: Decode | None = None
        self._decoder_known = False
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read the index again, unless the log is as it was."""
        size = self.folder.samples.stat().st_size
        if size == self._size:
            return
        self._size = size
        found = latest_entries(read_index(self.folder)).values()
        ordered = sorted(found, key=lambda entry: (natural_key(entry.sample.id), entry.sample.repeat))
        self.entries = {entry.offset: entry for entry in ordered}

    def episode(self, offset: int) -> dict[str, Any]:
        trajectory = read_episode(self.folder, self.entries[offset])
        builder = PageBuilder(self.metric, blobs_beside(self.folder.samples), self._decoder(trajectory.steps))
        return {"episode": builder.episode(trajectory), "images": builder.images}

    def _decoder(self, steps: Sequence[Any]) -> Decode | None:
        """The model's tokenizer, looked for once, and not before an episode has tokens to show."""
        with self._lock:
            if not self._decoder_known and any(step.tokens is not None for step in steps):
                self._decode, self._decoder_known = decoder_of_run(self.folder), True
            return self._decode


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    viewer: Viewer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in _LOCAL:
            return self._send(403, b"this server answers to 127.0.0.1 only\n", "text/plain")
        address = urlsplit(self.path)
        routes: dict[str, Callable[[str], None]] = {"/": self._page, "/episode": self._episode}
        route = routes.get(address.path)
        if route is None:
            return self._send(404, b"there is no such page\n", "text/plain")
        try:
            return route(address.query)
        except ConfigError as error:
            return self._send(500, f"{error}\n".encode("utf-8", "replace"), "text/plain; charset=utf-8")

    def _page(self, query: str) -> None:
        self._send(200, self.viewer.page().encode("utf-8", "replace"), "text/html; charset=utf-8")

    def _episode(self, query: str) -> None:
        asked = parse_qs(query)
        try:
            run, offset = int(asked["run"][0]), int(asked["n"][0])
        except (KeyError, ValueError):
            return self._send(400, b"ask for ?run=R&n=N\n", "text/plain")
        found = self.viewer.episode(run, offset)
        if found is None:
            return self._send(404, b"there is no such episode\n", "text/plain")
        return self._send(200, json.dumps(found).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)
