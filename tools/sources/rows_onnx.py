"""ONNX files as their packages ship them: voice activity with its state, file types, and text recognition."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from tools.sources.files import in_wheel
from tools.sources.row import Row

_SILERO, _MAGIKA, _OCR = "silero-vad==6.2.3", "magika==1.0.3", "rapidocr==3.10.0"
_VAD: Mapping[str, tuple[int, ...]] = {"input": (1, 576), "state": (2, 1, 128)}


def _row(name: str, requirement: str, member: str, inputs: Mapping[str, tuple[int, ...]]) -> Row:
    return Row(name=name, kind="ONNX", source=lambda: str(partial(in_wheel, requirement, member)()), inputs=inputs)


ROWS = (
    _row("silero_vad", _SILERO, "silero_vad/data/silero_vad.onnx", {**_VAD, "sr": ()}),
    _row("silero_op15", _SILERO, "silero_vad/data/silero_vad_16k_op15.onnx", {**_VAD, "sr": ()}),
    _row("silero_op18", _SILERO, "silero_vad/data/silero_vad_op18_ifless.onnx", {**_VAD, "sr": ()}),
    _row("magika", _MAGIKA, "magika/models/standard_v3_3/model.onnx", {"bytes": (1, 2048)}),
    _row("ppocr_det", _OCR, "rapidocr/models/PP-OCRv6_det_small.onnx", {"x": (1, 3, 320, 320)}),
    _row("ppocr_cls", _OCR, "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", {"x": (1, 3, 48, 192)}),
    _row("ppocr_rec", _OCR, "rapidocr/models/PP-OCRv6_rec_small.onnx", {"x": (1, 3, 48, 320)}),
)
