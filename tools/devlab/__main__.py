"""Make, start and stop the virtual devices.

python -m tools.devlab prepare [--best-effort] [PART…]   files only; never fails with --best-effort
python -m tools.devlab up [PART…]                        prepare, start in the background, write the inventory
python -m tools.devlab down [PART…]
python -m tools.devlab status
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.devlab import container
from tools.devlab.common import ROOT, UnavailableError, cache
from tools.devlab.parts import PARTS, Entry


def main() -> int:
    """The command line; 1 when a part cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m tools.devlab", description="Virtual devices made of real parts.")
    parser.add_argument("command", choices=["prepare", "up", "down", "status", "hold"])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: the usual ones")
    parser.add_argument("--best-effort", action="store_true", help="say what cannot be had, and succeed")
    args = parser.parse_args()
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}: {', '.join(PARTS)}")
    chosen = args.parts or [name for name, part in PARTS.items() if part.usual]
    if args.command == "prepare":
        return 0 if prepare(chosen) or args.best_effort else 1
    if args.command == "up":
        good = [prepare(chosen), *map(up, chosen)]
        inventory()
        return 0 if all(good) else 1
    if args.command == "down":
        down(args.parts or list(PARTS))
        return 0
    if args.command == "hold":
        hold(args.parts[0])
        return 0
    return status()


def prepare(names: Sequence[str]) -> bool:
    """Make the files, several parts at a time (most of it is waiting); whether all could be made."""
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        return all(list(pool.map(_prepared, names)))


def _prepared(name: str) -> bool:
    start = time.monotonic()
    try:
        PARTS[name].prepare()
    except UnavailableError as error:
        print(f"devlab: {name:12} cannot be had: {error}", flush=True)
        return False
    print(f"devlab: {name:12} ready ({time.monotonic() - start:.1f} s)", flush=True)
    return True


def up(name: str) -> bool:
    """Start a part in a process that outlives this one."""
    if PARTS[name].run is None or _state(name):
        return True
    folder = cache() / "run" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "hold.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.devlab", "hold", name],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while process.poll() is None:
        if _state(name):
            return True
        time.sleep(0.1)
    print(f"devlab: {name:12} does not start: {(folder / 'hold.log').read_text().strip()}")
    return False


def hold(name: str) -> None:
    """Run a part until this process is told to end."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    folder = cache() / "run" / name
    run = PARTS[name].run
    assert run is not None
    try:
        with run(folder) as entry:
            part = folder / "state.part"
            part.write_text(json.dumps({"pid": os.getpid(), "started": _started(os.getpid()), "entry": entry}))
            part.replace(folder / "state.json")
            over.wait()
    except UnavailableError as error:
        sys.exit(str(error))
    finally:
        (folder / "state.json").unlink(missing_ok=True)


def down(names: Sequence[str]) -> None:
    """Stop parts, and let the kernel forget what only they needed."""
    for name in names:
        state = _state(name)
        if state is None:
            continue
        os.kill(state[0], signal.SIGTERM)
        end = time.monotonic() + 60
        while _state(name) and time.monotonic() < end:
            time.sleep(0.1)
        print(f"devlab: {name:12} stopped")
    if not any(_state(name) for name in PARTS):
        container.unregister()
    inventory()


def status() -> int:
    """What runs, and how to reach it."""
    for name, part in PARTS.items():
        state = _state(name)
        print(f"{name:12} {part.what:38} {state[1]['address'] if state else '-'}")
    print(f"\ninventory: {cache() / 'devices.toml'}")
    for name in ("sshd", "pi4", "pi5", "board"):
        state = _state(name)
        if state:
            print(f"{name}: {ssh_line(state[1])}")
    return 0


def ssh_line(entry: Entry) -> str:
    """The command that logs in by hand."""
    login, _, port = entry["address"].removeprefix("ssh:").rpartition(":")
    options = f"-o UserKnownHostsFile={entry['known_hosts']} -o IdentitiesOnly=yes"
    return f"ssh -i {entry['identity']} {options} -p {port} {login}"


def inventory() -> None:
    """Write the running devices as an inventory that edgec reads."""
    lines = ["# Written by tools/devlab: the virtual devices that run."]
    for name in PARTS:
        state = _state(name)
        if state:
            lines += ["", f"[devices.{name}]", 'groups = ["devlab"]']
            lines += [f"{key} = {json.dumps(value)}" for key, value in state[1].items()]
    cache().mkdir(parents=True, exist_ok=True)
    (cache() / "devices.toml").write_text("\n".join(lines) + "\n")


def _state(name: str) -> tuple[int, Entry] | None:
    """Process and entry of a part that runs."""
    try:
        state = json.loads((cache() / "run" / name / "state.json").read_text())
    except (OSError, ValueError):
        return None
    return (state["pid"], state["entry"]) if _started(state["pid"]) == state["started"] else None


def _started(pid: int) -> str:
    """When a process started, so that a number used again is not mistaken for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
