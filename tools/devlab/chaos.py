"""A TCP proxy that breaks connections on purpose: cut or stall after so many bytes, slow all the time.

    python -m tools.devlab.chaos --to 127.0.0.1:22 --cut-after 40000000

Bytes are counted from the client to the device, over all connections, from the moment a fault is armed. A fault
strikes once; what connects afterwards passes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

_CHUNK_BYTES = 1 << 16
_NEW_NET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


class ChaosProxy:
    """Listens on a free port of loopback. `netns` is the process in whose network namespace the device is."""

    def __init__(self, to: tuple[str, int], *, port: int = 0, netns: int | None = None) -> None:
        self._to = to
        self._netns = netns
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        #: Bytes a second in each direction of each connection; 0 is unlimited.
        self.rate = 0
        self._lock = threading.Lock()
        self._left: int | None = None
        self._fault = ""
        self._struck = threading.Event()
        self._closed = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._stalled: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count: int) -> None:
        """Reset the connection that carries byte number `count`, with those before it delivered."""
        self._arm("cut", count)

    def stall_after(self, count: int) -> None:
        """From that byte on the connection that carries it stays open and carries nothing, either way."""
        self._arm("stall", count)

    def disarm(self) -> bool:
        """Nothing breaks any more; whether the fault had struck."""
        with self._lock:
            self._left = None
        return self._struck.is_set()

    def cut_now(self) -> None:
        """Reset all connections."""
        with self._lock:
            sockets = list(self._sockets)
        for end in sockets:
            _reset(end)

    def close(self) -> None:
        """Reset all connections and stop listening."""
        self._closed.set()
        self._listener.close()
        self.cut_now()

    def _arm(self, fault: str, count: int) -> None:
        with self._lock:
            self._fault, self._left = fault, count
            self._struck.clear()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            device = connect(self._to, self._netns)
        except OSError:
            _reset(client)
            return
        with self._lock:
            self._sockets |= {client, device}
        back = threading.Thread(target=self._pump, args=(device, client, False), daemon=True)
        back.start()
        self._pump(client, device, True)
        back.join()
        with self._lock:
            self._sockets -= {client, device}
            self._stalled -= {client, device}
        client.close()
        device.close()

    def _pump(self, source: socket.socket, sink: socket.socket, forward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                allowed, fault = self._spend(len(data)) if forward else (len(data), "")
                if not self._is_stalled(source):
                    sink.sendall(data[:allowed])
                if fault == "cut":
                    # What was sent before a reset may be discarded by the peer's kernel: let it be read first.
                    time.sleep(0.02)
                    _reset(source)
                    _reset(sink)
                    return
                if fault == "stall":
                    with self._lock:
                        self._stalled |= {source, sink}
                if self._is_stalled(source):
                    self._wait_for_end(source)
                    return
                if self.rate:
                    time.sleep(len(data) / self.rate)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _wait_for_end(self, source: socket.socket) -> None:
        """Read nothing more: the peer's window fills up, as with a device that hangs. Its own end is noticed."""
        while not self._closed.wait(0.2):
            if source.fileno() < 0 or _gone(source):
                self._reset_pair()
                return

    def _reset_pair(self) -> None:
        with self._lock:
            stalled = list(self._stalled)
        for end in stalled:
            _reset(end)

    def _is_stalled(self, end: socket.socket) -> bool:
        with self._lock:
            return end in self._stalled

    def _spend(self, count: int) -> tuple[int, str]:
        """How much of it may pass, and the fault that follows."""
        with self._lock:
            if self._left is None:
                return count, ""
            if count < self._left:
                self._left -= count
                return count, ""
            allowed, self._left = self._left, None
            self._struck.set()
            return allowed, self._fault


def _gone(end: socket.socket) -> bool:
    """Whether the peer has reset or closed, without reading its data."""
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] not in (1, 2, 3)  # ESTABLISHED, SYN_SENT, SYN_RECV


def _reset(end: socket.socket) -> None:
    """Close with RST, not FIN; threads that wait on it wake up."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        end.close()


def connect(to: tuple[str, int], netns: int | None) -> socket.socket:
    """A connection, made in a process's network namespace."""
    if netns is None:
        return socket.create_connection(to, timeout=None)

    def inside() -> socket.socket:
        _enter(netns)
        return socket.create_connection(to, timeout=None)

    # A namespace is entered by a thread: one that ends right after.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(inside).result()


def loopback_up(netns: int) -> None:
    """Switch on the loopback interface of a fresh network namespace."""

    def inside() -> None:
        _enter(netns)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            request = struct.pack("16sh22x", b"lo", 0)
            flags = struct.unpack("16sh22x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(inside).result()


def _enter(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(handle, _NEW_NET):
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")
    finally:
        os.close(handle)


@contextlib.contextmanager
def chaos(port: int, *, netns: int | None = None) -> Iterator[ChaosProxy]:
    """A proxy to a port of loopback, for the length of a `with`."""
    proxy = ChaosProxy(("127.0.0.1", port), netns=netns)
    try:
        yield proxy
    finally:
        proxy.close()


def main() -> None:
    """The proxy from the command line, until it is interrupted."""
    parser = argparse.ArgumentParser(description="A TCP proxy that breaks connections on purpose.")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--listen", type=int, default=0, metavar="PORT")
    parser.add_argument("--cut-after", type=int, metavar="BYTES")
    parser.add_argument("--stall-after", type=int, metavar="BYTES")
    parser.add_argument("--rate", type=int, default=0, metavar="BYTES_A_SECOND")
    args = parser.parse_args()
    host, _, port = args.to.rpartition(":")
    proxy = ChaosProxy((host, int(port)), port=args.listen)
    proxy.rate = args.rate
    if args.cut_after is not None:
        proxy.cut_after(args.cut_after)
    if args.stall_after is not None:
        proxy.stall_after(args.stall_after)
    print(f"127.0.0.1:{proxy.port} -> {args.to}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    proxy.close()


if __name__ == "__main__":
    main()
