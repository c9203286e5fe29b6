"""A chat-completions server over a raw socket that fails, stalls and lies as a test tells it to."""

from __future__ import annotations

import json
import signal
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

GOOD = "The product is grey and smooth, with a straight outline and an even surface all over."
Act = Callable[[socket.socket], None]


@dataclass
class Asked:
    """One request."""

    line: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def words(self) -> str:
        """The text after the pictures."""
        return self.body["messages"][-1]["content"][-1]["text"]

    @property
    def pictures(self) -> list[str]:
        """Their URLs."""
        parts = self.body["messages"][-1]["content"]
        return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


@dataclass
class Server:
    """What the test sees of the server."""

    url: str = ""
    behave: Callable[[int, Asked], Act] = lambda number, asked: reply(GOOD)
    asked: list[Asked] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Watched:
    """A connection whose request is over when its reply begins: the client may ask again before we know."""

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self._connection = connection
        self._server = server
        self._present = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def sendall(self, data: bytes) -> None:
        self.leave()
        self._connection.sendall(data)

    def leave(self) -> None:
        with self._server.lock:
            self._server.at_once -= self._present
            self._present = False


def raw(data: bytes) -> Act:
    """Send bytes and close."""
    return lambda connection: connection.sendall(data)


def status(code: int, content: Any = b"", **headers: str) -> Act:
    """Any status, with a body: bytes, or what becomes JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = [f"HTTP/1.1 {code} Said", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw("\r\n".join([*lines, "", ""]).encode() + body)


def reply(content: Any, finish: str = "stop", **more: Any) -> Act:
    """A chat completion."""
    message = {"role": "assistant", "content": content, **more}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return status(
        200, {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}
    )


def slowly(seconds: float, act: Act) -> Act:
    """Do it after so many seconds."""

    def later(connection: socket.socket) -> None:
        time.sleep(seconds)
        act(connection)

    return later


def stall(seconds: float) -> Act:
    """Say nothing for so long."""
    return lambda connection: time.sleep(seconds)


def trickle(seconds: float) -> Act:
    """A byte now and then: no single read waits long."""

    def act(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            connection.sendall(b" ")
            time.sleep(0.02)

    return act


def reset(connection: socket.socket) -> None:
    """Break the connection in the middle of the body."""
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{"choices": [')
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def serving(behave: Callable[[int, Asked], Act] | None = None, port: int = 0) -> Iterator[Server]:
    """Run a server on loopback; ``behave`` gets the request and how many came before it."""
    state = Server()
    if behave is not None:
        state.behave = behave

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked = _read(self.request)
            if asked is None:
                return
            with state.lock:
                number = len(state.asked)
                state.asked.append(asked)
                state.times.append(time.monotonic())
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            watched = _Watched(self.request, state)
            try:
                state.behave(number, asked)(cast(socket.socket, watched))
            except OSError:  # the client has gone
                pass
            finally:
                watched.leave()

    class Threads(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64
        allow_reuse_address = True

    with Threads(("127.0.0.1", port), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
    while len(body) < int(headers["content-length"]):
        more = connection.recv(65536)
        if not more:
            return None
        body += more
    return Asked(line, headers, json.loads(body))


def heed_interrupts() -> None:
    """For a child process: what a shell starts in the background is born deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
