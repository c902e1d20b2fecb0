"""TensorFlow Lite Micro: find the arena, write the C++ project."""

from __future__ import annotations

from edgec.packaging._tflm.arena import arena_facts, budget_findings, measure_arena
from edgec.packaging._tflm.project import Project, project_files
from edgec.packaging.base import Job, Package


def package(job: Job) -> Package:
    """Sources for a microcontroller. Raises `EdgecError` (validate/…) when TFLM does not take the model."""
    artifact = job.artifact
    model = artifact.files[artifact.main]
    arena = measure_arena(model, artifact.work)
    project = Project(
        name=job.name,
        target_id=job.target.id,
        model=model,
        operators=tuple(artifact.operators),
        arena_bytes=arena.smallest_bytes,
        scratch_bytes=arena.scratch_bytes,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        goldens=job.goldens,
    )
    findings = budget_findings(arena, job.target, where=job.name)
    return Package(
        files=project_files(project), facts=arena_facts(arena, artifact.peak_bytes), findings=tuple(findings)
    )
