"""`edgec check`: everything that stands between a model and a target, and nothing built."""

from __future__ import annotations

from edgec.cli import options
from edgec.cli.session import Answer, Mode, Progress, finish


def run(
    source: options.Source,
    target: options.TargetName,
    backend: options.BackendName = None,
    inputs: options.Inputs = None,
    source_kind: options.SourceKind = None,
    trust: options.Trust = False,
    custom: options.Custom = None,
    signature: options.Signature = None,
    factory: options.Factory = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List what stands between a model and a target.

    All findings at once: unsupported operators, limits. Nothing is built.
    """

    def work(_progress: Progress) -> Answer:
        from edgec.pipeline import run_check

        given = options.parse_inputs(inputs)
        return run_check(
            source,
            target=target,
            backend=backend.value if backend else None,
            inputs=given.shapes,
            reading=options.reading_of(
                given, kind=source_kind, trust=trust, custom=custom, signature=signature, factory=factory
            ),
        )

    def show(answer: Answer) -> str:
        from edgec.report.render import render_check

        return render_check(answer)

    finish(work, mode=Mode(json=json, quiet=quiet, debug=debug), show=show)
