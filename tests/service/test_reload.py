"""The service follows `current`: beside the old release, without a dropped request, and never to a bad one."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edgec.runners.base import agent_source
from tests.support import serving
from tests.support.serving import JSON, PATIENCE_S, SAMPLE, Service


def body() -> bytes:
    return json.dumps({"inputs": {"x": SAMPLE}}).encode()


def switch(root: Path, release: Path) -> None:
    """`current` leads to a release, as flash does it: one rename."""
    new = root / ".current.new"
    new.symlink_to(Path("releases", release.name))
    new.replace(root / "current")


def place(root: Path, bundle: Path) -> Path:
    """An unpacked release in its place."""
    folder = serving.unpack(bundle, root / "incoming")
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    release = root / "releases" / digest
    release.parent.mkdir(parents=True, exist_ok=True)
    return folder.rename(release)


class Hammer:
    """Clients that ask without a pause, each over one connection that stays, and note what they got."""

    def __init__(self, service: Service, clients: int) -> None:
        self.answers: list[tuple[int, Any]] = []
        self._service, self._end = service, threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(clients)]

    def _work(self) -> None:
        connection = self._service.connect()
        while not self._end.is_set():
            try:
                connection.request("POST", "/v1/infer", body(), {"Content-Type": JSON})
                answer = connection.getresponse()
                told = json.loads(answer.read())
                self.answers.append((answer.status, told.get("release", told)))
            except OSError as error:
                self.answers.append((0, repr(error)))
                return
            time.sleep(0.005)  # the machine has other work
        connection.close()

    def __enter__(self) -> Hammer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, release: str) -> None:
        """Until a client has an answer from a release."""
        end = time.monotonic() + PATIENCE_S
        while not any(told == release for _, told in self.answers[-100:]):
            assert time.monotonic() < end and not self.failed, self.answers[-3:]
            time.sleep(0.01)

    @property
    def failed(self) -> list[tuple[int, Any]]:
        return [answer for answer in self.answers if answer[0] != 200]


@pytest.mark.slow
def test_no_request_is_dropped_while_it_is_flashed_20_times(tmp_path: Path) -> None:
    root = tmp_path / "root"
    bundles = [serving.pack(tmp_path / f"{i}.edgec", version=str(i)) for i in range(21)]
    first = serving.flash(root, bundles[0]).digest
    with serving.serving(root, tmp_path=tmp_path) as service, Hammer(service, clients=3) as hammer:
        hammer.wait_for(first)
        for i, path in enumerate(bundles[1:]):
            result = serving.flash(root, path)
            assert result.result == "installed"
            if i % 2:  # every other one is overtaken by the next, and its files collected, while it is being loaded
                hammer.wait_for(result.digest)
    assert hammer.failed == []
    releases = {release for _, release in hammer.answers}
    assert {first, result.digest} <= releases
    assert len(releases) >= 11
    assert len(list((root / "releases").iterdir())) == 2


def test_a_release_that_cannot_be_loaded_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    good = place(root, serving.pack(tmp_path / "a.edgec"))
    refusing = agent_source().replace(b"def serve_stdio(", b"sys.exit(9)\n\n\ndef serve_stdio(", 1)
    cases = {
        "runtime-crashed": place(root, serving.pack(tmp_path / "b.edgec", version="2", agent=refusing)),
        "bad-release": place(root, serving.pack(tmp_path / "c.edgec", version="3")),
    }
    (cases["bad-release"] / "model.tflite").write_bytes(b"not what was built")
    switch(root, good)
    with serving.serving(root, tmp_path=tmp_path) as service:
        for code, release in cases.items():
            switch(root, release)
            said = service.wait_for(lambda said, code=code: (said["problem"] or {}).get("code") == code)  # type: ignore[misc]
            assert (said["ready"], said["release"]) == (True, good.name)
            assert said["problem"]["release"] == release.name
            assert service.metrics()["edgec_release_failing"] == 1
            assert service.infer()[1]["release"] == good.name
        assert service.metrics()['edgec_reloads_total{result="failed"}'] == 2
        switch(root, good)
        service.wait_for(lambda said: said["problem"] is None)
        assert service.metrics()["edgec_release_failing"] == 0


def test_it_starts_without_a_release_and_takes_the_first(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with serving.serving(root, tmp_path=tmp_path, wait=False) as service:
        said = service.wait_for(lambda said: said["problem"] is not None)
        assert (said["ready"], said["problem"]["code"]) == (False, "no-release")
        assert service.ask("GET", "/readyz")[0] == 503
        status, answer = service.infer()
        assert (status, answer["error"]["code"]) == (503, "no-release")
        assert service.metrics()["edgec_ready"] == 0
        release = place(root, serving.pack(tmp_path / "a.edgec"))
        switch(root, release)
        service.wait_for(lambda said: said["release"] == release.name)
        assert service.infer()[0] == 200


def test_hangup_tries_again_what_failed_before(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    release = place(root, serving.pack(tmp_path / "a.edgec"))
    model = release / "model.tflite"
    kept = model.read_bytes()
    model.write_bytes(b"damaged")
    switch(root, release)
    with serving.serving(root, tmp_path=tmp_path, wait=False) as service:
        service.wait_for(lambda said: (said["problem"] or {}).get("code") == "bad-release")
        model.write_bytes(kept)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda said: bool(said["ready"]))
        # The model is open: its files may go.
        shutil.rmtree(release)
        assert service.infer()[0] == 200


@pytest.mark.parametrize("target", ["/etc", "../elsewhere", "releases/../../elsewhere", "releases/notadigest"])
def test_a_link_that_leads_elsewhere_is_not_followed(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    serving.unpack(serving.pack(tmp_path / "a.edgec"), tmp_path / "elsewhere")
    (root / "current").symlink_to(target)
    with serving.serving(root, tmp_path=tmp_path, wait=False) as service:
        said = service.wait_for(lambda said: said["problem"] is not None)
        assert said["problem"]["code"] == "bad-release"
