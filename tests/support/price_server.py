"""Answers in the form of the providers' price lists, served over HTTP on loopback.

Written after the providers' documentation and rows that others quote, few of each; they are no captures.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ANSWERS = Path(__file__).parent / "price_answers"


def recorded(provider: str) -> dict[str, Any]:
    """What a provider answers: by what is asked, the document."""
    found: dict[str, Any] = json.loads((ANSWERS / f"{provider}.json").read_text(encoding="utf-8"))
    return found


@dataclass
class Answering:
    """A running server.

    Attributes:
        url: its address.
        asked: the paths that were asked for, decoded, in their order.
        keys: the API keys that came along.
        answers: documents by what they answer; bytes are sent as they are, a number is a status.
    """

    url: str
    answers: dict[str, Any]
    asked: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def answer(self, path: str) -> Any:
        """The document for a path: the one whose name is in it, page by page where there are several."""
        asked = unquote(path)
        query = parse_qs(urlsplit(path).query)
        page = int((query.get("pageToken") or query.get("$skip") or ["0"])[0])
        for name, found in self.answers.items():
            if name in asked:
                return found[page] if isinstance(found, list) else found
        return 404


@contextmanager
def serving(answers: Mapping[str, Any]) -> Iterator[Answering]:
    """Serve answers until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(unquote(self.path))
            state.keys.append(self.headers.get("X-Goog-Api-Key", ""))
            found = state.answer(self.path)
            body = found if isinstance(found, bytes) else json.dumps(found).replace("{endpoint}", state.url).encode()
            self.send_response(found if isinstance(found, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.block_on_close = True
    server.daemon_threads = False
    state = Answering(f"http://127.0.0.1:{server.server_port}", dict(answers))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
