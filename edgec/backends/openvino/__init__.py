"""OpenVINO backend: the float or QDQ model as an IR (xml and bin), read by OpenVINO's own importer.

legalize (rewrite what the importer gets wrong) → read → tidy → name → serialize.
"""

from edgec.backends.openvino.adopt import adopt
from edgec.backends.openvino.backend import check, compile, legalize

__all__ = ["adopt", "check", "compile", "legalize"]
