"""A TCP proxy before a server, with real sockets: it can stall, delay, cut, refuse, and lose a reply."""

from __future__ import annotations

import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

PIECE: Final = 1 << 16

# CommandComplete of a COMMIT: kind, length (with itself), tag (manual, "Message Formats").
COMMIT_DONE: Final = b"C\0\0\0\x0bCOMMIT\0"
# MySQL's COM_QUERY: length, number, command, text. What the server sends next is the reply.
MYSQL_COMMIT: Final = b"\x07\0\0\0\x03COMMIT"


class Proxy:
    """Passes what is sent to it on to a server on this machine, and back.

    Each connection has a thread. What is changed holds from the next piece of data on."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._flows = threading.Event()
        self._flows.set()
        self._closed = threading.Event()
        self._refuses = False
        self._delay = 0.0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._to_lose = 0
        self.lost = 0
        """Replies to COMMIT that were lost so far."""
        self.connections = 0
        """Connections that were made so far."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._flows.set()
        self.cut()
        self._listener.close()

    def url(self, url: str) -> str:
        """The URL of the server, by way of the proxy."""
        return re.sub(r"@127\.0\.0\.1:\d+/", f"@127.0.0.1:{self._listener.getsockname()[1]}/", url)

    def cut(self) -> int:
        """Ends every connection at once, without a word to the other side; how many there were."""
        with self._lock:
            pairs = list(self._open)
            for one in pairs:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        return len(pairs) // 2

    def lead_to(self, port: int) -> None:
        """To another server on this machine, from now on."""
        self._to = ("127.0.0.1", port)
        self.cut()

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Nothing passes, in either direction; no connection ends."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Nothing is connected, and nobody can connect."""
        self._refuses = True
        self.cut()
        try:
            yield
        finally:
            self._refuses = False

    def delay(self, seconds: float) -> None:
        """Every piece of data takes so much longer."""
        self._delay = seconds

    def lose_replies(self, times: int) -> None:
        """The next replies to COMMIT do not arrive: the connection ends when the server has sent one,
        so the transaction is committed, and the client cannot know."""
        with self._lock:
            self._to_lose = times

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._refuses:
            client.close()
            return
        try:
            server = socket.create_connection(self._to, timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        client.settimeout(None)
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, server}
        try:
            self._pass_on(client, server)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open -= {client, server}
            client.close()
            server.close()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        tail, commits = b"", False
        while not self._closed.is_set():
            for source in select.select([client, server], [], [], 0.5)[0]:
                data = source.recv(PIECE)
                self._flows.wait()
                if not data:
                    return
                if self._delay:
                    self._closed.wait(self._delay)
                if source is client:
                    commits = data.endswith(MYSQL_COMMIT)
                    server.sendall(data)
                    continue
                if self._to_lose and (commits or COMMIT_DONE in tail + data) and self._loses():
                    return
                tail = data[-len(COMMIT_DONE) + 1 :]
                client.sendall(data)

    def _loses(self) -> bool:
        with self._lock:
            if not self._to_lose:
                return False
            self._to_lose -= 1
            self.lost += 1
            return True
