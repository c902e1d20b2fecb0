"""Why is a prepared input not the one the bundle describes? Undo usual mistakes and see what fits.

1. A mistake is a change of geometry (layout, mirrored, another crop), of the order of the channels, or of the values'
   scale and offset. For each geometry and order the values' best scale and offset are known in closed form.
2. How well a hypothesis explains the device's input is the share of its variance that is left over, in decibels.
   The simplest hypothesis wins unless another one is better by `MARGIN_DB`.
3. Scale and offset are told on pixels where the preparation is known: x = (p·scale − mean)/std, so that `x·255` reads
   as what it is, values of 0 to 255.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.artifact import IoBinding
from edgec.quantization.data.recipe import InputSteps
from edgec.tensors import Array

#: As good as equal; another resize or JPEG decoder stays below it on most photos.
EQUAL_DB = 30.0
#: A hypothesis is believed when it explains so much, and so much more than no mistake at all (rule 2).
EXPLAINED_DB, MARGIN_DB = 15.0, 6.0
_MOST = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """How near the input is (`db`), what is wrong with it (empty where nothing is, or nothing simple), and how sure."""

    db: float
    faults: tuple[str, ...] = ()
    explained_db: float | None = None


@dataclass(frozen=True, slots=True)
class _View:
    """One hypothesis of geometry and order: what the input would be, and how to say so."""

    values: Array
    faults: tuple[str, ...]
    channel: int | None
    flipped: bool = False


def diagnose(
    binding: IoBinding, expected: Array, actual: Array, steps: InputSteps | None, variants: Mapping[str, Array]
) -> Diagnosis:
    """Compare the device's input with the expected one, both in the artifact's terms.

    `variants` are expected inputs under other preparations, each with what it would mean.
    """
    faults = _type_faults(binding, actual)
    wanted, got = _real(binding, expected), _real(binding, actual)
    same = wanted.shape == got.shape
    direct = _db(wanted, got) if same else -_MOST
    if same and not faults and direct >= EQUAL_DB:
        return Diagnosis(db=direct)
    if got.size == 0 or not np.isfinite(got).all():
        return Diagnosis(db=-_MOST, faults=(*faults, "it holds numbers that are none (NaN or infinite)"))
    if float(got.std()) == 0.0 and float(wanted.std()) > 0:
        return Diagnosis(db=direct, faults=(*faults, f"it is {got.flat[0]:g} everywhere"))
    best: tuple[float, _View] | None = None
    for view in _views(wanted, got.shape, {k: _real(binding, v) for k, v in variants.items()}):
        db = _fitted(view, got)[0]
        if best is None or db >= best[0] + MARGIN_DB * max(1, len(view.faults) - len(best[1].faults)):
            best = (db, view)
    if best is None:
        text = f"its shape is {actual.shape} where {binding.artifact.shape} is expected"
        return Diagnosis(db=-_MOST, faults=(*faults, text))
    db, view = best
    values = _value_faults(view, got, steps)
    found = (*faults, *view.faults, *values)
    if db < EXPLAINED_DB or (same and db < direct + MARGIN_DB and not faults):
        shape = () if same else (f"its shape is {actual.shape} where {binding.artifact.shape} is expected",)
        return Diagnosis(db=direct, faults=(*faults, *shape))
    return Diagnosis(db=direct, faults=found, explained_db=db)


def _type_faults(binding: IoBinding, actual: Array) -> tuple[str, ...]:
    want = binding.artifact.dtype.numpy
    if actual.dtype == want:
        return ()
    q = binding.artifact.qparams
    if q is not None and actual.dtype.kind == "f":
        scale, zero = q.scale[0], q.zero_point[0]
        return (f"it is {actual.dtype} where the model takes {want}: q = round(x/{scale:g}) + {zero}",)
    return (f"it is {actual.dtype} where the model takes {want}",)


def _real(binding: IoBinding, value: Array) -> Array:
    """Real numbers in the artifact's axes."""
    q = binding.artifact.qparams
    if q is not None and value.dtype == binding.artifact.dtype.numpy and value.ndim == len(binding.artifact.shape):
        value = q.dequantize(value)
    return value.astype(np.float64)


def _db(wanted: Array, got: Array) -> float:
    """Variance of the expected input over the mean squared difference."""
    noise = float(np.mean((wanted - got) ** 2)) if wanted.size else 0.0
    signal = float(wanted.var()) if wanted.size else 0.0
    if noise == 0:
        return _MOST
    return float(10 * np.log10(signal / noise)) if signal > 0 and np.isfinite(noise) else -_MOST


def _views(wanted: Array, shape: tuple[int, ...], variants: Mapping[str, Array]) -> Iterator[_View]:
    """Hypotheses, the simplest first (rule 1)."""
    channel = _channel_axis(wanted.shape)
    if channel is None or wanted.ndim != 4:
        yield from _arranged(_View(wanted, (), None), shape)
        return
    rows, columns = (axis for axis in (1, 2, 3) if axis != channel)
    order = "BGR" if wanted.shape[channel] == 3 else "the other way round"
    for flipped in (False, True):
        for why, picture in (("", wanted), *variants.items()):
            for turn, axes in (
                ("", ()),
                ("mirrored", (columns,)),
                ("upside down", (rows,)),
                ("turned", (rows, columns)),
            ):
                if why and turn:
                    continue
                image = np.flip(picture, axes) if axes else picture
                faults = tuple(filter(None, (why, f"the picture is {turn}" if turn else "")))
                if flipped:
                    image = np.flip(image, channel)
                    faults = (*faults, f"the colour channels are in the opposite order ({order} for RGB, or back)")
                if flipped and wanted.shape[channel] == 1:
                    continue
                yield from _arranged(_View(image, faults, channel, flipped), shape)


def _channel_axis(shape: Sequence[int]) -> int | None:
    """The axis of a picture's channels; None where there is none."""
    return next((axis for axis in (3, 1) if len(shape) == 4 and shape[axis] in (1, 3, 4)), None)


def _arranged(view: _View, shape: tuple[int, ...]) -> Iterator[_View]:
    """The same values in the device's shape: as they are, with axes in another order, or read in the wrong order."""
    have = view.values.shape
    if have == shape:
        yield view
    elif _squeezed(have) == _squeezed(shape):
        yield _View(
            view.values.reshape(shape),
            (*view.faults, f"the shape is {shape}, axes of length 1 aside"),
            None,
            view.flipped,
        )
        return
    if len(have) < 3 or view.values.size != int(np.prod(shape)):
        return
    for perm in itertools.permutations(range(1, len(have))):
        axes = (0, *perm)
        if axes == tuple(range(len(have))):
            continue
        turned = view.values.transpose(axes)
        channel = None if view.channel is None else axes.index(view.channel)
        if turned.shape == shape:
            names = f"the axes are in another order: {_layout(view.channel, have)} is {have}, it is {turned.shape}"
            if have == shape:
                names = f"two axes are exchanged (transpose {axes})"
            yield _View(turned, (*view.faults, names), channel, view.flipped)
        elif _is_layout_change(view.channel, channel):
            text = "the values are in memory as another layout (channels first for channels last, or back)"
            if turned.size == int(np.prod(shape)) and have == shape:
                values = np.ascontiguousarray(turned).reshape(shape)
                yield _View(values, (*view.faults, text), view.channel, view.flipped)


def _is_layout_change(before: int | None, after: int | None) -> bool:
    return {before, after} == {1, 3}


def _layout(channel: int | None, shape: Sequence[int]) -> str:
    return {1: "channels first", 3: "channels last"}.get(channel or 0, "the model's") if len(shape) == 4 else "it"


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _fitted(view: _View, got: Array) -> tuple[float, Array, Array]:
    """(decibels, scale, offset) of got ≈ scale·view + offset, channel by channel where there are channels."""
    x, y = _by_channel(view.values, view.channel), _by_channel(got, view.channel)
    x_mean, y_mean = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    spread = ((x - x_mean) ** 2).sum(axis=1)
    with np.errstate(all="ignore"):
        slope = np.where(spread > 0, ((x - x_mean) * (y - y_mean)).sum(axis=1) / spread, 0.0)
    offset = y_mean[:, 0] - slope * x_mean[:, 0]
    left = float(np.mean((y - slope[:, None] * x - offset[:, None]) ** 2))
    # Against the variance inside the channels: between them the offset explains everything.
    whole = float(np.mean((y - y_mean) ** 2))
    if slope.min() < 0:  # a negative of the picture is no mistake that anybody makes
        return -_MOST, slope, offset
    return (_MOST if left <= whole * 10 ** (-_MOST / 10) else float(10 * np.log10(whole / left))), slope, offset


def _by_channel(value: Array, channel: int | None) -> Array:
    return value.reshape(1, -1) if channel is None else np.moveaxis(value, channel, 0).reshape(value.shape[channel], -1)


def _value_faults(view: _View, got: Array, steps: InputSteps | None) -> tuple[str, ...]:
    """What the scale and offset mean (rule 3)."""
    _, slope, offset = _fitted(view, got)
    spread = float(got.std()) or 1.0
    if np.all(np.abs(slope - 1) < 0.03) and np.all(np.abs(offset) < 0.05 * spread):
        return ()
    if steps is None or view.channel is None or steps.scale is None:
        return (f"the values are {_number(slope)}·x + {_number(offset)} where x is expected",)
    scale = float(steps.scale)
    mean, std = (np.broadcast_to(np.asarray(v, np.float64), slope.shape) for v in (steps.mean, steps.std))
    shown_mean, shown_std = mean, std
    if view.flipped:  # expected values came with their own channel's mean and std
        mean, std = mean[::-1], std[::-1]
    per_pixel, at_zero = slope * scale / std, offset - slope * mean / std
    # Who exchanges the channels of a picture normalises them by their new places: one mistake, not two.
    mean, std = shown_mean, shown_std
    if _close(per_pixel, at_zero, scale / std, -mean / std):
        return ()
    for name, (k, o) in _usual(scale, mean, std).items():
        if _close(per_pixel, at_zero, k, o):
            return (f"{name}; the bundle takes (p·{scale:g} − {_number(mean)})/{_number(std)} of a pixel p",)
    wanted = f"p·{_number(scale / std)} + {_number(-mean / std)}"
    return (f"a pixel p becomes p·{_number(per_pixel)} + {_number(at_zero)} where the bundle takes {wanted}",)


def _close(per_pixel: Array, at_zero: Array, k: Array, o: Array) -> bool:
    """The same line on pixels: within 3 % of its slope, and 4 % of the range at 0."""
    return bool(
        np.all(np.abs(per_pixel - k) < 0.03 * np.abs(k)) and np.all(np.abs(at_zero - o) < 0.04 * 255 * np.abs(k))
    )


def _usual(scale: float, mean: Array, std: Array) -> dict[str, tuple[Array, Array]]:
    """Scale and offset on a pixel of the usual mistakes, by what to call them."""
    one, none = np.ones_like(mean), np.zeros_like(mean)
    imagenet = (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))
    found = {
        "the values are pixels of 0 to 255": (one, none),
        "the values are 0 to 1 (p/255)": (one / 255, none),
        "the values are -1 to 1 (p/127.5 - 1)": (one / 127.5, -one),
        "the mean is not subtracted": (scale / std, none),
        "there is no division by std": (one * scale, -mean),
        "mean and std are applied twice": (scale / std**2, -mean / std**2 - mean / std),
        "the pixels are scaled twice": (scale**2 / std, -mean / std),
        "the mean is subtracted from pixels of 0 to 255": (one / std, -mean / std),
        "pixels minus 128": (one, -128 * one),
    }
    if mean.size == 3:
        found["the values are normalised as torchvision does for ImageNet"] = (
            1 / 255 / imagenet[1],
            -imagenet[0] / imagenet[1],
        )
    return found


def _number(values: Array) -> str:
    """One number, or as many as there are channels."""
    flat = np.atleast_1d(np.asarray(values, np.float64)).ravel()
    if np.allclose(flat, flat[0], rtol=1e-2, atol=1e-9):
        return f"{flat[0] if flat.size == 1 else flat.mean():.4g}"
    return "[" + ", ".join(f"{v:.4g}" for v in flat) + "]"
