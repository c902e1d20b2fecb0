"""The HTTP side: addresses, limits, and answers that are JSON whatever happens.

1. Every body has a length that is held against the limit before it is read, and a deadline until it is there.
2. At most `connections` are open and `in_flight` inferences wait; more are told to come again (503).
3. Without a token only this machine may ask, under its own name: a web page that a browser on the device shows cannot
   (a foreign Host header is refused, and JSON cannot be posted across origins without being asked first).
"""

from __future__ import annotations

import hmac
import json
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from edgec.service.bodies import JSON, NPZ, parse_json, parse_npz, plain, write_json, write_npz
from edgec.service.keeper import Keeper
from edgec.service.metrics import CONTENT_TYPE
from edgec.service.model import Model
from edgec.service.monitor import Monitor
from edgec.service.problems import ServiceError
from edgec.service.server import Gate

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")


@dataclass(frozen=True)
class Limits:
    """What a client may ask for."""

    body_bytes: int = 32 << 20
    request_s: float = 30.0
    connections: int = 64
    in_flight: int = 16


@dataclass(frozen=True)
class Context:
    """What every request needs. `token` is empty where none is asked for; `local` when only this machine may ask."""

    keeper: Keeper
    monitor: Monitor
    limits: Limits
    gate: Gate
    token: str = ""
    local: bool = True


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "edgec-agent"
    sys_version = ""
    #: Seconds that a socket may be silent.
    timeout = 30.0
    context: Context

    def do_GET(self) -> None:
        """Health, facts, metrics."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """An inference."""
        self._guarded(self._post)

    def _guarded(self, answer: Any) -> None:
        self._replied = False
        try:
            self._admit()
            answer(urlsplit(self.path))
        except ServiceError as error:
            self._fail(error)
        except OSError:  # the client is gone
            self.close_connection = True
        except Exception:
            sys.stderr.write(traceback.format_exc())  # for the journal; the client learns that it happened
            self._fail(ServiceError(500, "internal", "the service failed; its log says more"))

    def _admit(self) -> None:
        """Rule 3."""
        context = self.context
        if context.local:
            host = self.headers.get("Host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name and name not in LOCAL_NAMES:
                raise ServiceError(403, "forbidden", f"this service does not answer as {host[:80]!r}")
        if context.token:
            given = self.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), b"Bearer " + context.token.encode()):
                raise ServiceError(401, "unauthorized", "a token is needed", "send Authorization: Bearer TOKEN")

    # ------------------------------------------------------------------------------------------ GET

    def _get(self, address: Any) -> None:
        context = self.context
        model = context.keeper.model
        problem = context.keeper.problem()
        if address.path == "/healthz":
            self._json(200, {"alive": True})
        elif address.path == "/readyz":
            ready = model is not None and model.stable
            self._json(200 if ready else 503, {"ready": ready, "release": _digest(model), "problem": problem})
        elif address.path == "/v1/model":
            taken = context.keeper.take()
            with taken.used():
                facts = {"runtime": taken.runtime, "load_seconds": taken.load_seconds, "problem": problem}
                drift = context.monitor.drift_facts(taken)
                self._json(200, {**taken.release.summary(), "input_drift": drift, **facts})
        elif address.path == "/metrics":
            ready = model is not None and model.stable
            self._send(200, context.monitor.page(model, ready=ready, failing=problem is not None), CONTENT_TYPE)
        elif address.path == "/v1/infer":
            raise ServiceError(405, "method", "an inference is a POST")
        else:
            raise ServiceError(404, "not-found", f"there is nothing at {address.path[:80]!r}", "see docs/monitoring.md")

    # ------------------------------------------------------------------------------------------ POST

    def _post(self, address: Any) -> None:
        if address.path != "/v1/infer":
            raise ServiceError(404, "not-found", f"nothing can be posted to {address.path[:80]!r}")
        context = self.context
        began = time.monotonic()
        status = 500
        context.monitor.in_flight.add()
        try:
            if not context.gate.enter():
                self.close_connection = True  # its body was not read
                raise ServiceError(503, "busy", f"{context.limits.in_flight} requests wait already", "try again")
            try:
                self._infer(address, began + context.limits.request_s)
            finally:
                context.gate.leave()
            status = 200
        except ServiceError as error:
            status = error.status
            context.monitor.errors.add(kind=error.code)
            if error.code == "runtime-crashed":
                context.monitor.crashes.add()
            raise
        except Exception:
            context.monitor.errors.add(kind="internal")
            raise
        finally:
            context.monitor.in_flight.add(-1.0)
            context.monitor.requests.add(code=str(status))
            context.monitor.latency.observe(time.monotonic() - began)

    def _infer(self, address: Any, deadline: float) -> None:
        raw = _wants_raw(address.query)
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in (JSON, NPZ):
            self.close_connection = True
            raise ServiceError(415, "media-type", f"a body is {JSON} or {NPZ}, not {kind[:80]!r}")
        body = self._body(deadline)
        limit = self.context.limits.body_bytes
        given = parse_json(body) if kind == JSON else parse_npz(body, limit)
        model = self.context.keeper.take()
        with model.used():
            outputs, seconds = self._run(model, given, raw, deadline)
            digest = model.release.digest
        accepted = self.headers.get("Accept", "")
        if NPZ in accepted or (kind == NPZ and JSON not in accepted):
            self._send(200, write_npz(outputs), NPZ, {"X-Edgec-Release": digest})
            return
        answer = {name: plain(value) for name, value in outputs.items()}
        self._json(200, {"outputs": answer, "release": digest, "seconds": seconds}, {"X-Edgec-Release": digest})

    def _run(self, model: Model, given: dict[str, Any], raw: bool, deadline: float) -> tuple[dict[str, Any], float]:
        release, monitor = model.release, self.context.monitor
        names = [port.side(raw).name for port in release.inputs]
        for name in given:
            if name not in names:
                raise ServiceError(400, "bad-input", f"there is no input {name!r}", "inputs: " + ", ".join(names))
        arrays = {}
        for port in release.inputs:
            side = port.side(raw)
            if side.name not in given:
                hint = "inputs: " + ", ".join(names)
                raise ServiceError(400, "bad-input", f"input {side.name!r} is missing", hint)
            arrays[side.name] = side.take(np.asarray(given[side.name]))
        values = {p.artifact.name: arrays[p.side(raw).name] for p in release.inputs}
        feeds = values if raw else {p.artifact.name: p.to_artifact(values[p.artifact.name]) for p in release.inputs}
        results, seconds = model.run(feeds, max(0.001, deadline - time.monotonic()))
        monitor.inference.observe(seconds)
        plain_inputs = {
            p.source.name: p.to_source(values[p.artifact.name]) if raw else values[p.artifact.name]
            for p in release.inputs
        }
        plain_outputs = {p.source.name: p.to_source(value) for p, value in zip(release.outputs, results)}
        monitor.saw(plain_inputs, plain_outputs)
        if not raw:
            return plain_outputs, seconds
        return {p.artifact.name: value for p, value in zip(release.outputs, results)}, seconds

    def _body(self, deadline: float) -> bytes:
        """Rule 1."""
        size = self._length()
        limit = self.context.limits.body_bytes
        if size > limit:
            self.close_connection = True
            raise ServiceError(413, "too-large", f"the body has {size} bytes; at most {limit} are taken")
        parts, left = [], size
        while left:
            wait = deadline - time.monotonic()
            if wait <= 0:
                self.close_connection = True
                raise ServiceError(408, "slow-body", "the body did not come in time")
            self.connection.settimeout(min(wait, self.timeout))
            try:
                part = self.rfile.read1(min(left, 1 << 16))
            except (TimeoutError, socket.timeout) as error:  # one thing since Python 3.10
                self.close_connection = True
                raise ServiceError(408, "slow-body", "the body did not come in time") from error
            if not part:
                self.close_connection = True
                raise ServiceError(400, "short-body", f"the body ended {left} bytes before its length")
            parts.append(part)
            left -= len(part)
        self.connection.settimeout(self.timeout)
        return b"".join(parts)

    def _length(self) -> int:
        text = self.headers.get("Content-Length", "").strip()
        if "Transfer-Encoding" in self.headers or not text:
            self.close_connection = True
            raise ServiceError(411, "no-length", "a body needs a Content-Length")
        if not (text.isascii() and text.isdigit()) or len(text) > 15:
            self.close_connection = True
            raise ServiceError(400, "bad-request", f"{text[:40]!r} is no length")
        return int(text)

    def handle_expect_100(self) -> bool:
        """The body is asked for only when it would be taken."""
        self._replied = False
        try:
            self._admit()
            if self._length() > self.context.limits.body_bytes:
                raise ServiceError(413, "too-large", f"at most {self.context.limits.body_bytes} bytes are taken")
        except ServiceError as error:
            self.close_connection = True
            self._fail(error)
            return False
        return super().handle_expect_100()

    # ------------------------------------------------------------------------------------------ answers

    def _fail(self, error: ServiceError) -> None:
        if getattr(self, "_replied", False):
            self.close_connection = True
            return
        if self.command == "POST" and error.status in (401, 403, 404, 500):
            self.close_connection = True  # its body may not have been read
        extra = {"Retry-After": "1"} if error.status == 503 else {}
        if error.status == 401:
            extra["WWW-Authenticate"] = "Bearer"
        try:
            self._json(error.status, {"error": error.record()}, extra)
        except OSError:
            self.close_connection = True

    def _json(self, status: int, value: Any, extra: dict[str, str] | None = None) -> None:
        self._send(status, write_json(value), JSON, extra)

    def _send(self, status: int, body: bytes, kind: str, extra: dict[str, str] | None = None) -> None:
        if self.context.gate.closing:
            self.close_connection = True
        self._replied = True
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *(extra or {}).items()):
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses: as JSON, like the rest."""
        self.close_connection = True
        body = json.dumps({"error": {"code": "bad-request", "message": message or explain or "", "hint": ""}})
        try:
            self.send_response(code)
            self.send_header("Content-Type", JSON)
            self.send_header("Content-Length", str(len(body) + 1))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body.encode() + b"\n")
        except OSError:
            return

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server calls it so
        """Requests are counted, not logged."""

    def address_string(self) -> str:
        """A Unix socket's clients have no address."""
        return str(self.client_address[0])


def _digest(model: Model | None) -> str:
    return "" if model is None else model.release.digest


def _wants_raw(query: str) -> bool:
    try:
        asked = parse_qs(query, max_num_fields=8)
    except ValueError:
        asked = {"": [""]}
    kind = asked.pop("io", ["source"])[-1]
    if asked or kind not in ("source", "raw"):
        raise ServiceError(400, "bad-request", "the address takes io=source or io=raw, and nothing else")
    return kind == "raw"
