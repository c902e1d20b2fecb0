"""A software bill of materials: CycloneDX 1.6 JSON with the model, the runtime it needs and the tools that made it.

No timestamp and a serial number made from the model's digest: the same build gives the same document.
"""

from __future__ import annotations

import uuid
from typing import Any

from edgec.bundle.manifest import Manifest, to_json

_NAMESPACE = uuid.UUID("6f0a3a53-9f0c-5b0e-8f3b-0d1f4d2c7a11")


def sbom_bytes(manifest: Manifest, model_digest: str) -> bytes:
    """The document of one bundle; `model_digest` is the digest of all model files together."""
    model_ref = f"model:{manifest.name}"
    runtime = manifest.target.runtime
    requirements = {runtime.package: runtime.min_version, **manifest.requirements}
    runtimes = [_package(name, f">={version}", "required") for name, version in sorted(requirements.items())]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(_NAMESPACE, model_digest).urn,
        "version": 1,
        "metadata": {
            "tools": {"components": [_package(n, v) for n, v in sorted(manifest.provenance.tools.items())]},
            "component": _model(manifest, model_ref),
        },
        "components": runtimes,
        "dependencies": [
            {"ref": model_ref, "dependsOn": [component["bom-ref"] for component in runtimes]},
            *({"ref": component["bom-ref"], "dependsOn": []} for component in runtimes),
        ],
    }
    return to_json(document)


def _model(manifest: Manifest, ref: str) -> dict[str, Any]:
    origin = manifest.provenance
    properties = {
        "edgec:backend": manifest.backend,
        "edgec:precision": manifest.precision,
        "edgec:target": manifest.target.id,
        "edgec:source.name": origin.source_name,
        "edgec:source.sha256": origin.source_digest,
        "edgec:calibration.sha256": origin.calibration_digest,
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": manifest.name,
        "hashes": [{"alg": "SHA-256", "content": manifest.files[manifest.model].sha256}],
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{name}",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": manifest.files[name].sha256}],
            }
            for name in manifest.model_files
        ],
        "properties": [{"name": key, "value": value} for key, value in sorted(properties.items()) if value],
    }


def _package(name: str, version: str, scope: str = "") -> dict[str, Any]:
    exact = version.removeprefix(">=")
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pypi:{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{exact}" if exact == version else f"pkg:pypi/{name}",
    }
    return {**component, "scope": scope} if scope else component
