"""`edgec check`: everything that stands between a model and a target, and nothing built."""

from __future__ import annotations

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    source: options.Source,
    target: options.TargetName,
    backend: options.BackendName = None,
    inputs: options.Inputs = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List what stands between a model and a target.

    All findings at once: unsupported operators, limits. Nothing is built.
    """

    def work(_progress: Progress) -> Answer:
        from edgec.pipeline import run_check

        return run_check(
            source,
            target=target,
            backend=backend.value if backend else None,
            inputs=options.parse_inputs(inputs),
        )

    def show(answer: Answer) -> str:
        from edgec.report.render import render_check

        return render_check(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show)
