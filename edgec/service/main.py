"""`edgec-agent serve`: answer inferences with the release that `edgec flash` made current, and show metrics.

serve.pyz serve --root DIR [--unix PATH | --host HOST --port N] [--token-file FILE] …
serve.pyz install --root DIR      write the systemd unit, start it, wait until it answers with the release
serve.pyz unit --root DIR         print that unit
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from edgec.service.api import Context, Handler, Limits
from edgec.service.install import install
from edgec.service.keeper import Keeper
from edgec.service.monitor import Monitor
from edgec.service.problems import ServiceError
from edgec.service.server import Gate, Server, UnixServer
from edgec.service.unit import unit_text

DEFAULT_PORT = 8093
_DRAIN_S = 20.0


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.call(args))
    except ServiceError as error:
        hint = f" ({error.hint})" if error.hint else ""  # one line: edgec flash shows the last one
        sys.stderr.write(f"error[service/{error.code}]: {error}{hint}\n")
        return 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgec-agent", description="Serve the current release of this device.")
    commands = parser.add_subparsers(dest="command", required=True)
    served = commands.add_parser("serve", help="answer inferences and show metrics")
    served.set_defaults(call=serve)
    served.add_argument("--root", required=True, help="what edgec flash made, or an unpacked bundle")
    served.add_argument("--unix", metavar="PATH", help="listen on a Unix socket")
    served.add_argument("--host", default="127.0.0.1", help="other addresses than loopback need --token-file")
    served.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")
    served.add_argument("--token-file", metavar="FILE", help="clients must send what stands in it")
    served.add_argument("--threads", type=int, default=1, help="of the runtime")
    served.add_argument("--max-body", type=int, default=32, metavar="MIB")
    served.add_argument("--max-requests", type=int, default=16, metavar="N", help="that wait at the same time")
    served.add_argument("--max-connections", type=int, default=64, metavar="N")
    served.add_argument("--timeout", type=float, default=30.0, metavar="S", help="of a request")
    served.add_argument("--load-timeout", type=float, default=300.0, metavar="S", help="of loading a release")
    served.add_argument("--poll", type=float, default=1.0, metavar="S", help="how often `current` is looked at")
    for name, call, text in (
        ("install", _install, "write the systemd unit, start it, and wait for the release"),
        ("unit", _unit, "print the systemd unit"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--root", required=True)
        command.set_defaults(call=call)
    return parser


def _install(args: argparse.Namespace) -> int:
    return install(args.root)


def _unit(args: argparse.Namespace) -> int:
    sys.stdout.write(unit_text(args.root, python=sys.executable))
    return 0


def serve(args: argparse.Namespace) -> int:
    """Until SIGTERM or SIGINT."""
    token = _token(args.token_file)
    _check(args, token)
    monitor = Monitor()
    limits = Limits(
        body_bytes=args.max_body << 20,
        request_s=args.timeout,
        connections=args.max_connections,
        in_flight=args.max_requests,
    )
    keeper = Keeper(
        Path(args.root),
        threads=args.threads,
        load_timeout_s=args.load_timeout,
        poll_s=args.poll,
        swapped=monitor.loaded,
        failed=lambda _error: monitor.reloads.add(result="failed"),
    )
    local = not args.unix and not token
    gate = Gate(limits.in_flight)
    context = Context(keeper=keeper, monitor=monitor, limits=limits, gate=gate, token=token, local=local)
    handler = type("BoundHandler", (Handler,), {"context": context})
    try:
        if args.unix:
            server: Server = UnixServer(args.unix, handler, limits.connections)
        else:
            server = Server((args.host, args.port), handler, limits.connections)
    except OSError as error:
        where = args.unix or f"{args.host}:{args.port}"
        raise ServiceError(503, "address-in-use", f"cannot listen on {where}: {error}", "choose another one") from error
    ended = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: ended.set())
    signal.signal(signal.SIGHUP, lambda *_: keeper.hurry())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
    _tell(args, server)
    keeper.look()
    watcher = threading.Thread(target=keeper.watch, daemon=True)
    watcher.start()
    _notify("READY=1")
    while not ended.wait(1.0):  # an interval, so that signals are seen on every Python
        pass
    _notify("STOPPING=1")
    gate.closing = True
    server.shutdown()
    gate.drain(_DRAIN_S)
    server.server_close()
    keeper.stop()
    watcher.join(timeout=5)
    return 0


def _token(path: str | None) -> str:
    if path is None:
        return ""
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ServiceError(503, "bad-token", f"the token file {path} cannot be read: {error}") from error
    if len(token) < 16 or not token.isprintable() or " " in token:
        message = f"the token in {path} must be one word of 16 characters or more"
        raise ServiceError(503, "bad-token", message, "make one: head -c 24 /dev/urandom | base64 > FILE")
    return token


def _check(args: argparse.Namespace, token: str) -> None:
    if not args.unix and not token and not _is_loopback(args.host):
        message = f"{args.host} can be reached from other machines, and no token is asked for"
        raise ServiceError(503, "open-door", message, "give --token-file FILE, or listen on 127.0.0.1 or --unix PATH")
    small = {"threads": 1, "max_body": 1, "max_requests": 1, "max_connections": 1, "timeout": 0.01, "poll": 0.01}
    for name, lowest in {**small, "load_timeout": 0.01}.items():
        if not getattr(args, name) >= lowest:
            raise ServiceError(503, "bad-option", f"--{name.replace('_', '-')} must be {lowest} or more")
    if not Path(args.root).is_dir():
        raise ServiceError(503, "no-release", f"there is no folder {args.root}", "it is the ROOT of edgec flash")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tell(args: argparse.Namespace, server: Server) -> None:
    """One line of JSON: where it listens."""
    place: dict[str, Any] = {"unix": args.unix}
    if not args.unix:
        host, port = server.server_address[:2]
        place = {"host": host, "port": port}
    sys.stdout.write(json.dumps({"listening": place}) + "\n")
    sys.stdout.flush()


def _notify(state: str) -> None:
    """Tell systemd, where it asked for it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
