"""`edgec flash`: bring a bundle onto a device, or onto many, so that each runs a whole release whatever happens."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    bundle: Annotated[str, typer.Argument(help="The .edgec file.", show_default=False)],
    device: options.Devices = None,
    group: options.Group = None,
    inventory: options.InventoryFile = None,
    root: options.Root = "",
    with_runtime: Annotated[
        options.TravelingRuntime, typer.Option("--with-runtime", help="Bring the runtime; auto: where it is missing.")
    ] = options.TravelingRuntime.auto,
    keep: Annotated[int, typer.Option("--keep", min=2, metavar="N", help="Releases that stay on the device.")] = 2,
    trust_key: Annotated[
        Path | None, typer.Option("--trust-key", metavar="FILE", help="Refuse what this ed25519 key has not signed.")
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option("--max-latency", metavar="MS", help="Of a run; default: the target's.")
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option("--max-memory", metavar="MIB", help="Of a run; default: the target's.")
    ] = None,
    after_switch: Annotated[
        str, typer.Option("--after-switch", metavar="COMMAND", help="Runs on the device; rolled back if it fails.")
    ] = "",
    service: Annotated[
        bool, typer.Option("--service", help="Install the release as a systemd service there, and wait for its answer.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look, and print each step and why; change nothing.")
    ] = False,
    canary: Annotated[int, typer.Option("--canary", min=0, metavar="N", help="Of many: these first.")] = 1,
    max_failures: Annotated[
        int, typer.Option("--max-failures", min=0, metavar="N", help="Of many: go on with up to N failed.")
    ] = 0,
    parallel: Annotated[int, typer.Option("--parallel", min=1, metavar="N", help="Of many: at the same time.")] = 8,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a rollout that was stopped.")] = False,
    journal: Annotated[
        Path | None, typer.Option("--journal", metavar="FILE", help="The rollout's journal; default: the user's own.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Install a bundle on devices and check it there.

    What passes there becomes what runs. Whatever breaks on the way, each device runs a whole release, the old one or
    the new one.
    """

    def work(progress: Progress) -> Answer:
        from edgec.flash.fleet import Policy
        from edgec.flash.run import run_flash
        from edgec.flash.session import Options

        wishes = Options(
            root=root,
            keep=keep,
            runtime=with_runtime.value,
            hook=tuple(shlex.split(after_switch)),
            service=service,
            latency_ms=max_latency,
            memory_bytes=None if max_memory is None else int(max_memory * 2**20),
            dry_run=dry_run,
        )
        return run_flash(
            bundle,
            devices=device or (),
            group=group,
            inventory=inventory,
            options=wishes,
            policy=Policy(canary=canary, max_failures=max_failures, parallel=parallel),
            trust_key=trust_key,
            journal=journal,
            resume=resume,
            progress=progress,
            told=lambda _device, _what, done, total: progress("devices", done, total),
        )

    def show(answer: Answer) -> str:
        from edgec.report.flash import render_flash

        return render_flash(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show)
