"""The one place that knows the order: source → passes → calibration → plan → QDQ → artifact → bundle → validation."""

from edgec.pipeline.build_bundle import build, run_build
from edgec.pipeline.compare import run_compare
from edgec.pipeline.deliver import BuildResult
from edgec.pipeline.examine import calibrate, check, run_calibrate, run_check
from edgec.pipeline.stages import STAGES

__all__ = [
    "STAGES",
    "BuildResult",
    "build",
    "calibrate",
    "check",
    "run_build",
    "run_calibrate",
    "run_check",
    "run_compare",
]
