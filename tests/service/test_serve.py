"""The service over a real socket, with the real runtime: answers, refusals, crashes, limits."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.bundle.open import open_bundle
from edgec.service.pack import service_pyz
from tests.support import serving
from tests.support import tiny_bundles as tiny
from tests.support.serving import JSON, SAMPLE, Service

NPZ = "application/x-npz"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "a.edgec"
    return serving.pack(path, int8=True, agent=serving.trapped_agent())


@pytest.fixture(scope="module")
def service(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    root = serving.unpack(bundle, folder / "root")
    with serving.serving(root, "--max-body", "1", "--timeout", "60", tmp_path=folder) as running:
        yield running


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def test_answers_are_those_of_the_bundle(service: Service, bundle: Path) -> None:
    x = tiny.sample(3)
    status, answer = service.infer({"x": x.tolist()})
    assert status == 200, answer
    with open_bundle(bundle) as opened:
        wanted = opened.run({"x": x})["y"]
        assert answer["release"] == opened.digest
    np.testing.assert_array_equal(np.asarray(answer["outputs"]["y"], np.float32), wanted)


def test_npz_both_ways_and_raw(service: Service, bundle: Path) -> None:
    x = tiny.sample(4)
    with open_bundle(bundle) as opened:
        raw = opened.inputs[0].to_artifact(x)
        wanted, wanted_raw = opened.run({"x": x})["y"], opened.run_raw({"x_in": raw})["y_out"]
    status, body, headers = service.ask("POST", "/v1/infer", npz(x=x), {"Content-Type": NPZ})
    assert (status, headers["Content-Type"]) == (200, NPZ)
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["y"], wanted)
    status, body, _ = service.ask("POST", "/v1/infer?io=raw", npz(x_in=raw), {"Content-Type": NPZ, "Accept": JSON})
    assert status == 200
    np.testing.assert_array_equal(np.asarray(body["outputs"]["y_out"], np.int8), wanted_raw)


def test_facts_and_metrics(service: Service) -> None:
    status, model, _ = service.ask("GET", "/v1/model")
    assert status == 200
    assert model["inputs"][0]["source"] == {"name": "x", "shape": [1, 2, 3, 4], "dtype": "float32"}
    assert model["inputs"][0]["raw"]["dtype"] == "int8"
    assert model["runtime"].startswith("ai-edge-litert ")
    assert service.ask("GET", "/healthz")[:2] == (200, {"alive": True})
    before = service.metrics()
    assert service.infer()[0] == 200
    assert service.infer({"x": [1.0]})[0] == 400
    after = service.metrics()

    def grew(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grew('edgec_requests_total{code="200"}') == 1
    assert grew('edgec_requests_total{code="400"}') == 1
    assert grew('edgec_errors_total{kind="bad-input"}') == 1
    assert grew("edgec_request_seconds_count") == 2
    assert grew("edgec_inference_seconds_count") == 1
    assert grew('edgec_inference_seconds_bucket{le="+Inf"}') == 1
    assert after["edgec_ready"] == 1
    assert after["edgec_in_flight_requests"] == 0
    assert after['edgec_resident_memory_bytes{process="runtime"}'] > 1 << 20
    assert any(name.startswith("edgec_release_info{") and model["release"] in name for name in after)


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{}", JSON, 400, "bad-json"),
        (b"[1", JSON, 400, "bad-json"),
        (b'{"inputs": {}}', JSON, 400, "bad-input"),
        (b'{"inputs": {"z": [1]}}', JSON, 400, "bad-input"),
        (b'{"inputs": {"x": "text"}}', JSON, 400, "bad-input"),
        (b'{"inputs": {"x": [[1, 2], [3]]}}', JSON, 400, "bad-input"),
        (b'{"inputs": {"x": [[[[1e39]]]]}}', JSON, 400, "bad-input"),
        (b'{"inputs": {"x": [1]}, "more": 1}', JSON, 400, "bad-json"),
        (b"[" * 100_000, JSON, 400, "bad-json"),
        (b"PK not a zip", NPZ, 400, "bad-npz"),
        (b"{}", "text/plain", 415, "media-type"),
    ],
)
def test_bad_bodies_are_refused_with_a_reason(service: Service, body: bytes, kind: str, status: int, code: str) -> None:
    got, answer, headers = service.ask("POST", "/v1/infer", body, {"Content-Type": kind})
    assert (got, answer["error"]["code"]) == (status, code)
    assert answer["error"]["message"]
    assert headers["Content-Type"] == JSON
    assert "Traceback" not in service.log


def test_a_pickle_and_a_bomb_are_refused(service: Service) -> None:
    out = io.BytesIO()
    np.savez(out, x=np.array([{"a": 1}], dtype=object))
    status, answer, _ = service.ask("POST", "/v1/infer", out.getvalue(), {"Content-Type": NPZ})
    assert (status, answer["error"]["code"]) == (400, "bad-npz")
    out = io.BytesIO()
    np.savez_compressed(out, x=np.zeros(8 << 20, np.uint8))
    status, answer, _ = service.ask("POST", "/v1/infer", out.getvalue(), {"Content-Type": NPZ})
    assert (status, answer["error"]["code"]) == (413, "too-large")


_POST = b"POST /v1/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def talk(service: Service, text: bytes) -> bytes:
    """Everything that comes back for some bytes."""
    with socket.create_connection((service.place["host"], service.place["port"]), timeout=serving.PATIENCE_S) as line:
        line.sendall(text)
        line.shutdown(socket.SHUT_WR)
        parts = []
        while part := line.recv(65536):
            parts.append(part)
        return b"".join(parts)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (_POST + b"\r\n", b"411"),
        (
            _POST + b"Transfer-Encoding: chunked\r\n\r\n",
            b"411",
        ),
        (
            _POST + b"Content-Length: 99999999\r\n\r\n",
            b"413",
        ),
        (
            _POST + b"Content-Length: -5\r\n\r\n",
            b"400",
        ),
        (
            _POST + b"Content-Length: 50\r\n\r\n{",
            b"400",
        ),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /v1/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"405"),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example:80\r\nConnection: close\r\n\r\n", b"403"),
        (b"DELETE /v1/model HTTP/1.1\r\nHost: localhost\r\n\r\n", b"501"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_bad_requests_are_refused_before_their_body(service: Service, text: bytes, status: bytes) -> None:
    answer = talk(service, text)
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/"):
        assert head.split()[1] == status, answer
    else:  # HTTP/0.9 has no head
        body = answer
    assert json.loads(body)["error"]["message"]


def test_a_body_is_asked_for_only_when_it_would_be_taken(service: Service) -> None:
    body = json.dumps({"inputs": {"x": SAMPLE}}).encode()
    good = _POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    large = _POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
    # Both over one connection: the second is judged anew.
    answer = talk(service, good + body + large)
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 200 " in answer
    assert b"HTTP/1.1 413 " in answer
    assert answer.count(b"HTTP/1.1 100 ") == 1


def test_a_runtime_that_aborts_or_hangs_takes_nothing_with_it(bundle: Path, tmp_path: Path) -> None:
    root = serving.unpack(bundle, tmp_path / "root")
    raw = np.zeros((1, 3, 4, 2), np.int8)
    with serving.serving(root, "--timeout", "3", tmp_path=tmp_path) as service:
        raw.reshape(-1)[0] = 66
        status, answer = service.infer({"x_in": raw.tolist()}, query="?io=raw")
        assert (status, answer["error"]["code"]) == (500, "runtime-crashed")
        assert "SIGABRT" in answer["error"]["message"]
        assert "the kernel gives up" in answer["error"]["message"]
        assert service.infer_until_ok()
        raw.reshape(-1)[0] = 77
        status, answer = service.infer({"x_in": raw.tolist()}, query="?io=raw")
        assert (status, answer["error"]["code"]) == (504, "timeout")
        assert service.infer_until_ok()
        metrics = service.metrics()
        assert metrics["edgec_runtime_crashes_total"] == 1
        assert metrics['edgec_errors_total{kind="timeout"}'] >= 1


def test_a_model_that_crashes_again_and_again_rests(bundle: Path, tmp_path: Path) -> None:
    root = serving.unpack(bundle, tmp_path / "root")
    raw = np.full((1, 3, 4, 2), 66, np.int8)
    with serving.serving(root, tmp_path=tmp_path) as service:
        codes: list[str] = []
        while "unstable" not in codes and len(codes) < 40:
            codes.append(service.infer({"x_in": raw.tolist()}, query="?io=raw")[1]["error"]["code"])
        # Five within a minute; on a machine where five take longer than that, none of this is to be seen.
        assert codes[-1] == "unstable" or set(codes) == {"runtime-crashed"}
        assert service.ask("GET", "/healthz")[0] == 200
        if codes[-1] == "unstable":
            assert codes[:-1] == ["runtime-crashed"] * (len(codes) - 1)


def test_many_clients_at_once_all_get_their_own_answer(service: Service, bundle: Path) -> None:
    wrong: list[Any] = []
    samples = [tiny.sample(seed) for seed in range(8)]
    with open_bundle(bundle) as opened:
        expected = [opened.run({"x": x})["y"] for x in samples]

    def client(seed: int) -> None:
        for _ in range(5):
            status, answer = service.infer({"x": samples[seed].tolist()})
            if status != 200 or not np.array_equal(np.asarray(answer["outputs"]["y"], np.float32), expected[seed]):
                wrong.append((status, answer))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_unix_socket(bundle: Path, tmp_path: Path) -> None:
    root = serving.unpack(bundle, tmp_path / "root")
    path = tmp_path / "s"
    with serving.serving(root, "--unix", str(path), tmp_path=tmp_path) as service:
        assert service.infer()[0] == 200
        assert path.stat().st_mode & 0o777 == 0o660
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=serving.PATIENCE_S) == 0
    assert not path.exists()
    path.write_text("mine")
    done = start(root, "--unix", str(path), tmp_path=tmp_path)
    assert done.returncode == 3
    assert "no socket" in done.stderr
    assert path.read_text() == "mine"


def start(root: Path, *arguments: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """A start that is refused."""
    pyz = tmp_path / "refused.pyz"
    pyz.write_bytes(service_pyz())
    command = [sys.executable, str(pyz), "serve", "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=serving.PATIENCE_S, check=False)


def test_beyond_loopback_only_with_a_token(bundle: Path, tmp_path: Path) -> None:
    root = serving.unpack(bundle, tmp_path / "root")
    done = start(root, "--host", "0.0.0.0", "--port", "0", tmp_path=tmp_path)
    assert (done.returncode, "error[service/open-door]" in done.stderr) == (3, True)
    token = tmp_path / "token"
    token.write_text("short\n")
    done = start(root, "--host", "0.0.0.0", "--port", "0", "--token-file", str(token), tmp_path=tmp_path)
    assert (done.returncode, "error[service/bad-token]" in done.stderr) == (3, True)
    token.write_text("correct-horse-battery\n")
    arguments = ("--host", "0.0.0.0", "--token-file", str(token))
    with serving.serving(root, *arguments, tmp_path=tmp_path, wait=False) as service:
        service.place["host"] = "127.0.0.1"
        assert service.infer()[0] == 401
        assert service.ask("GET", "/metrics")[0] == 401
        given = {"Authorization": "Bearer correct-horse-battery"}
        assert service.ask("GET", "/healthz", None, given)[0] == 200
        assert service.ask("GET", "/healthz", None, {"Authorization": "Bearer wrong"})[0] == 401


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--threads", "0"), "bad-option"), (("--timeout", "nan"), "bad-option"), (("--poll", "0"), "bad-option")],
)
def test_options_that_make_no_sense(tmp_path: Path, arguments: tuple[str, ...], code: str) -> None:
    done = start(tmp_path, *arguments, tmp_path=tmp_path)
    assert (done.returncode, f"error[service/{code}]" in done.stderr) == (3, True)


def test_too_many_connections_are_told_to_come_again(bundle: Path, tmp_path: Path) -> None:
    root = serving.unpack(bundle, tmp_path / "root")
    with serving.serving(root, "--max-connections", "2", tmp_path=tmp_path) as service, contextlib.ExitStack() as open_:
        for _ in range(2):
            line = open_.enter_context(contextlib.closing(service.connect()))
            status = 503
            while status == 503:  # the connection of the question before may still be closing
                line.close()
                line.request("GET", "/healthz")
                answer = line.getresponse()
                status = answer.status
                answer.read()
        assert service.ask("GET", "/healthz")[0] == 503


def test_sample_is_what_the_model_takes() -> None:
    assert np.asarray(SAMPLE).shape == (1, 2, 3, 4)
