"""Sockets: a thread for each connection, no more connections than agreed, and an orderly end."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import stat
import threading
import time
from pathlib import Path
from typing import Any

from edgec.service.problems import ServiceError

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nRetry-After: 1\r\n"
    b'Content-Length: 77\r\n\r\n{"error": {"code": "busy", "hint": "", "message": "too many connections"}}  \n'
)


class Gate:
    """How many may be inside; `closing` once the service ends."""

    def __init__(self, size: int) -> None:
        self._places = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._inside = 0
        self.closing = False

    def enter(self) -> bool:
        """True when there was a place."""
        if not self._places.acquire(blocking=False):
            return False
        with self._lock:
            self._inside += 1
        return True

    def leave(self) -> None:
        """Free the place."""
        with self._lock:
            self._inside -= 1
        self._places.release()

    def drain(self, timeout_s: float) -> None:
        """Wait until nobody is inside."""
        end = time.monotonic() + timeout_s
        while self._inside and time.monotonic() < end:
            time.sleep(0.02)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Over TCP. `connections` is the most that are open."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: Any, handler: Any, connections: int) -> None:
        if isinstance(address, tuple) and ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._slots = threading.BoundedSemaphore(connections)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Turn away what is too much."""
        if not self._slots.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.settimeout(1.0)
                request.sendall(_FULL)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no news."""


class UnixServer(Server):
    """Over a Unix socket, for its group."""

    address_family = socket.AF_UNIX
    _bound = False

    def server_bind(self) -> None:
        """Take the place of a socket that nobody listens on any more; refuse anything else that is there."""
        path = Path(str(self.server_address))
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ServiceError(503, "address-in-use", f"{path} is there, and is no socket")
            if _answers(path):
                raise ServiceError(503, "address-in-use", f"another process listens on {path}")
            path.unlink()
        before = os.umask(0o117)  # rw-rw----
        try:
            self.socket.bind(str(path))
            self._bound = True
        finally:
            os.umask(before)

    def get_request(self) -> tuple[Any, Any]:
        """Its clients have no address."""
        request, _ = self.socket.accept()
        return request, ("unix", 0)

    def server_close(self) -> None:
        """The socket's file goes with it, when it is ours: a bind that failed comes here too."""
        super().server_close()
        if self._bound:
            with contextlib.suppress(OSError):
                Path(str(self.server_address)).unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
