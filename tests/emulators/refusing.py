"""A proxy before an emulated AWS that refuses as AWS does when something is wrong: keys, permissions, quotas."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError

HOPS = ("connection", "transfer-encoding", "host", "content-length", "date", "server")


@dataclass(frozen=True)
class Asked:
    """A request: its method, its path with the query, its body."""

    method: str
    path: str
    body: bytes

    @property
    def is_s3(self) -> bool:
        """Whether it is neither Lambda's nor of a service that is asked with a form."""
        return not self.path.startswith("/20") and b"Action=" not in self.body


@dataclass(frozen=True)
class Answer:
    """A refusal: the status, AWS's word for the error, and the message."""

    status: int
    code: str
    message: str = "refused"

    def body(self) -> bytes:
        """As S3 and the older services say it; Lambda says the code in a header."""
        inner = f"<Code>{self.code}</Code><Message>{self.message}</Message>"
        return f"<ErrorResponse><Error>{inner}</Error>{inner}</ErrorResponse>".encode()


Rule = Callable[[Asked], Answer | None]


@dataclass
class Refusing:
    """The proxy.

    Attributes:
        url: of it.
        rule: asked before a request goes on; what it answers is the answer.
        asked: every request so far.
    """

    url: str
    rule: Rule
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def refusing(url: str, rule: Rule) -> Iterator[Refusing]:
    """A proxy before the AWS at `url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, body)
            proxy.asked.append(asked)
            answer = proxy.rule(asked)
            if answer is None:
                self._forward(body)
                return
            is_s3 = asked.is_s3
            content = answer.body() if is_s3 or b"Action=" in body else b'{"message": "%s"}' % answer.message.encode()
            self._reply(answer.status, {"x-amzn-errortype": answer.code}, b"" if self.command == "HEAD" else content)

        def _forward(self, body: bytes) -> None:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOPS}
            request = urllib.request.Request(url + self.path, body or None, headers, method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=60) as found:
                    self._reply(found.status, dict(found.headers), found.read())
            except HTTPError as error:
                self._reply(error.code, dict(error.headers), error.read())

        def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in HOPS:
                    self.send_header(name, value)
            length = headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Refusing(f"http://127.0.0.1:{server.server_port}", rule)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
