"""Read calibration samples from audio files: mono, resampled, cut into windows of the model's length.

Resampling is a windowed-sinc filter in polyphase form, worked out only for the window that is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, gcd
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import EdgecError, Finding, Severity
from edgec.quantization.data.readers.base import cast, constants_of, fit, list_files, normalise, sample_shape, steps_of
from edgec.quantization.data.recipe import Recipe
from edgec.tensors import Array, TensorSpec

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".aiff", ".aif"})

#: Zero crossings of the sinc on each side; 16 keeps the pass band flat to within 0.1 dB.
_ZEROS = 16
#: Variance added before a window is divided by its deviation: silence stays silence.
_SILENCE = 1e-7


@dataclass(frozen=True, slots=True)
class _Window:
    file: Path
    start: int
    rate: int


class AudioReader:
    """One sample a window. Short files are padded with silence."""

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], recipe: Recipe) -> None:
        self._sound = _soundfile()
        self._constants = constants_of(inputs, recipe.inputs)
        self._input = _audio_input([spec for spec in inputs if spec.name not in self._constants], path)
        self._steps = steps_of(self._input, recipe.inputs)
        self._rate = recipe.audio.sample_rate
        self._length = recipe.audio.window or max(sample_shape(self._input))
        self._unit = recipe.audio.normalize
        self._hop = recipe.audio.hop or self._length
        self._windows = [w for file in _files(path) for w in self._cut(file)]
        self.findings: tuple[Finding, ...] = self._announce()

    def __len__(self) -> int:
        return len(self._windows)

    def close(self) -> None:
        """Nothing stays open."""

    def content(self, index: int) -> bytes:
        """The window's samples after resampling."""
        return self._samples(self._windows[index]).tobytes()

    def read(self, index: int) -> dict[str, Array]:
        """Window `index` in the input's shape."""
        window = self._windows[index]
        samples = self._samples(window)
        if self._unit:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + _SILENCE)
        value = normalise(samples, self._steps, None)
        value = fit(value, self._input, where=str(window.file))
        return {self._input.name: cast(value, self._input, self._steps), **self._constants}

    def _cut(self, file: Path) -> list[_Window]:
        try:
            info = self._sound.info(str(file))
        except (RuntimeError, OSError) as error:
            raise _unreadable(file, error) from error
        rate = self._rate or info.samplerate
        frames = ceil(info.frames * rate / info.samplerate)
        starts = range(0, max(frames - self._length, 0) + 1, self._hop)
        return [_Window(file, start, info.samplerate) for start in starts]

    def _samples(self, window: _Window) -> Array:
        """`length` mono samples at the wanted rate, in -1..1."""
        rate = self._rate or window.rate
        if rate == window.rate:
            return self._frames(window.file, window.start, window.start + self._length)
        up, down = rate // gcd(rate, window.rate), window.rate // gcd(rate, window.rate)
        first, taps, weights = _filter_bank(window.start, self._length, up, down)
        segment = self._frames(window.file, int(first[0]), int(first[-1]) + taps)
        gathered = segment[(first - first[0])[:, None] + np.arange(taps)]
        return np.asarray(np.einsum("nt,nt->n", gathered, weights), np.float32)

    def _frames(self, file: Path, start: int, stop: int) -> Array:
        """Frames [start, stop) as mono float32; outside the file there is silence."""
        try:
            with self._sound.SoundFile(str(file)) as sound:
                low, high = max(start, 0), min(max(stop, 0), sound.frames)
                sound.seek(min(low, sound.frames))
                data = sound.read(max(high - low, 0), dtype="float32", always_2d=True)
        except (RuntimeError, OSError) as error:
            raise _unreadable(file, error) from error
        mono = data.mean(axis=1, dtype=np.float32)
        before = min(low - start, stop - start)
        return np.pad(mono, (before, stop - start - before - len(mono)))

    def _announce(self) -> tuple[Finding, ...]:
        rates = sorted({window.rate for window in self._windows})
        if self._rate is not None or not rates:
            return ()
        return (
            Finding(
                code="calibration/audio-defaults",
                message=f"audio is read at its own rate ({', '.join(map(str, rates))} Hz), mono, "
                f"in windows of {self._length} samples",
                severity=Severity.WARNING if len(rates) > 1 else Severity.INFO,
                where=self._input.name,
                hint="set audio.sample_rate in a recipe to the rate the model was trained with",
            ),
        )


def _filter_bank(start: int, length: int, up: int, down: int) -> tuple[Array, int, Array]:
    """First source frame, number of taps and weights for each output sample of [start, start + length)."""
    cutoff = min(1.0, up / down)
    half = ceil(_ZEROS / cutoff)
    position = np.arange(start, start + length, dtype=np.int64) * down
    first = position // up - half + 1
    phases = np.arange(up)[:, None] / up
    distance = np.arange(-half + 1, half + 1)[None, :] - phases
    kernel = cutoff * np.sinc(cutoff * distance) * np.cos(np.pi * distance / (2 * half + 2)) ** 2
    bank = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return first, 2 * half, bank[position % up]


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError):
        raise EdgecError(
            "env/missing-extra", "reading audio needs soundfile", hint="pip install 'edgec[audio]'"
        ) from None
    return soundfile


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list_files(path, SUFFIXES)


def _audio_input(inputs: Sequence[TensorSpec], path: Path) -> TensorSpec:
    """The one input that takes a waveform: a single axis longer than 1."""
    if len(inputs) == 1 and inputs[0].dtype.is_float and sum(d != 1 for d in sample_shape(inputs[0])) <= 1:
        return inputs[0]
    listing = ", ".join(f"{spec.name} {spec.shape}" for spec in inputs)
    raise EdgecError(
        "calibration/inputs",
        f"audio files feed one waveform input, the model takes {listing}",
        where=str(path),
        hint="give the features that the model takes as .npy or .npz",
    )


def _unreadable(file: Path, error: Exception) -> EdgecError:
    return EdgecError(
        "calibration/unreadable", f"cannot read the audio file: {error}", where=str(file), hint="remove or replace it"
    )
