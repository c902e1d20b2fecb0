"""The proxy that breaks connections: to the byte, once, and afterwards not at all."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tools.devlab.chaos import ChaosProxy, chaos


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        while data := self.request.recv(1 << 16):
            server.received += data
            self.request.sendall(data)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    received = b""

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections end here as they are cut."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Echo) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: _Server) -> Iterator[ChaosProxy]:
    with chaos(server.server_address[1]) as running:
        yield running


def talk(proxy: ChaosProxy, data: bytes) -> bytes:
    """Send all, then read all that comes back."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        got = b""
        while part := client.recv(1 << 16):
            got += part
        return got


def test_unarmed_it_changes_nothing(proxy: ChaosProxy) -> None:
    data = bytes(range(256)) * 2000
    assert talk(proxy, data) == data
    assert not proxy.disarm()


@pytest.mark.parametrize("count", [0, 1, 1000, 70_000])
def test_a_cut_delivers_exactly_so_much(proxy: ChaosProxy, server: _Server, count: int) -> None:
    proxy.cut_after(count)
    with pytest.raises(OSError):
        talk(proxy, b"x" * 200_000)
        raise OSError("the reset came after all was read")  # the echo may have been read to its end
    assert proxy.disarm()
    # The server's thread may still be reading what was delivered.
    for _ in range(200):
        if len(server.received) == count:
            break
        threading.Event().wait(0.05)
    assert len(server.received) == count
    assert talk(proxy, b"again") == b"again"


def test_a_stall_keeps_the_connection_and_carries_nothing(proxy: ChaosProxy, server: _Server) -> None:
    proxy.stall_after(3)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=1) as client:
        client.sendall(b"12345")
        with pytest.raises(TimeoutError):
            while client.recv(1 << 16) != b"":
                pass
    assert proxy.disarm()
    assert server.received == b"123"
    assert talk(proxy, b"again") == b"again"


def test_bytes_are_counted_over_connections(proxy: ChaosProxy) -> None:
    proxy.cut_after(10)
    assert talk(proxy, b"123456") == b"123456"
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.sendall(b"789abc")
        with pytest.raises(OSError):
            while client.recv(100):
                pass
            raise OSError("closed")
    assert proxy.disarm()
