"""Give every quantized value its scale, and say which units cannot have theirs.

1. Values that a same-scale operator connects form one group with one range, the union of its members'.
2. An operator whose output scale the runtime fixes fixes it for its group; a group that needs more than the
   fixed range, or two different fixed scales, cannot be: the operator that joined it stays float.
3. A value without range keeps every unit that touches it float.
4. A Concat whose inputs differ in width by more than 16 × costs the narrow ones more than 4 of 8 bits: it stays float
   when only graph outputs read it, and is reported otherwise. 16 bits have that much to spare.
5. Where products of two activations take no zero points, their operands are symmetric, and what shares their scale.
6. What depthwise convolutions alone read, and shares its scale with nothing, may have one a channel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from edgec.errors import Finding, Severity
from edgec.graph.model import label, origin
from edgec.graph.traits import Kind, is_depthwise, within_inputs
from edgec.quantization.planning.affine import Extent, activation_params, channel_params, is_usable, union
from edgec.quantization.planning.assignment import Assignment, Numbers
from edgec.quantization.planning.groups import Groups
from edgec.quantization.planning.neighbours import Neighbours
from edgec.quantization.planning.ranges import Ranges
from edgec.quantization.planning.ratios import plan_constants
from edgec.quantization.planning.units import Unit, is_activation_product
from edgec.quantization.types import TensorPlan
from edgec.targets.scheme import Scheme
from edgec.tensors import DType, QParams

#: Wider ranges than this hold a sentinel (a mask, a missing value), not data: 8 bits would erase the data.
HUGE = 1e7

#: Rule 4.
CONCAT_RATIO = 16.0


def assign(
    neighbours: Neighbours,
    live: Collection[int],
    ranges: Ranges,
    numbers: Numbers,
    *,
    others: Collection[int] = (),
) -> Assignment:
    """Scales for the live units' values. When `refused` is not empty the rest is not complete: exclude and repeat.

    `others` are live too, and compute in the other width.
    """
    units = [(i, neighbours.units[i]) for i in sorted(live)]
    result = Assignment()
    values = _quantized_values(units, numbers.scheme)
    _refuse_without_range(units, values, ranges, result)
    if numbers.dtype is not DType.INT16:
        _check_joins(neighbours, units, {*live, *others}, ranges, result)
    if not result.refused:
        _share_scales(units, values, ranges, numbers, result)
    if not result.refused:
        plan_constants(units, ranges, numbers, result)
    return result


def _quantized_values(units: list[tuple[int, Unit]], scheme: Scheme) -> dict[str, ir.Value]:
    """Values that get parameters: what live units read and, where kernels write int8, what they write."""
    values = {v.name or "": v for _, unit in units for v in unit.data()}
    if scheme.int8_outputs:
        values.update({v.name or "": v for _, unit in units for v in unit.outputs()})
    return values


def fixed_params(unit: Unit, numbers: Numbers) -> QParams | None:
    """The output parameters that the runtime fixes for a unit, or None."""
    fixed = numbers.scheme.fixed_output.get(unit.tail.op_type)
    if fixed is None:
        return None
    if numbers.dtype is DType.INT16:  # all of them: [-1, 1) in 16 bits
        return QParams.per_tensor(2.0**-15, 0)
    return QParams.per_tensor(fixed.scale, fixed.zero_point)


def _refuse_without_range(
    units: list[tuple[int, Unit]], values: dict[str, ir.Value], ranges: Ranges, result: Assignment
) -> None:
    """Rule 3, with one finding a value."""
    told: set[str] = set()
    for i, unit in units:
        for value in (*unit.data(), *(v for v in unit.outputs() if v.name in values)):
            name = value.name or ""
            extent = ranges.of(value)
            if extent is not None and is_usable(extent, HUGE):
                continue
            missing = extent is None
            result.refused.setdefault(
                i, f"tensor {name!r} has no calibration range" if missing else f"the range of {name!r} is too wide"
            )
            if name not in told:
                told.add(name)
                result.findings.append(_range_finding(value, unit, extent))


def _range_finding(value: ir.Value, unit: Unit, extent: Extent | None) -> Finding:
    producer = value.producer()
    return Finding(
        code="quant/no-range" if extent is None else "quant/huge-range",
        message=f"tensor {value.name!r} has no calibration range"
        if extent is None
        else f"tensor {value.name!r} ranges over [{extent[0]:.3g}, {extent[1]:.3g}]: 256 steps cannot hold it",
        severity=Severity.WARNING,
        where=label(unit.head if producer is None else producer),
        source=origin(unit.head if producer is None else producer),
        hint="its operators stay float; add samples that reach it to the calibration set"
        if extent is None
        else "its operators stay float; a mask or a sentinel value is better handled outside the model",
    )


def _check_joins(
    neighbours: Neighbours,
    units: list[tuple[int, Unit]],
    live: Collection[int],
    ranges: Ranges,
    result: Assignment,
) -> None:
    """Rule 4."""
    for i, unit in units:
        if unit.kind is not Kind.MOVER or i in result.refused:
            continue
        widths = [(e[1] - e[0], v.name) for v in unit.data() if (e := ranges.of(v)) is not None and e[1] > e[0]]
        if len(widths) < 2 or max(widths)[0] <= CONCAT_RATIO * min(widths)[0]:
            continue
        ratio = max(widths)[0] / min(widths)[0]
        if not any(r in live for v in unit.outputs() for r in neighbours.readers(v)[0]):
            result.refused[i] = f"its inputs' ranges differ {ratio:.0f} ×, and no int8 operator reads the result"
            continue
        result.findings.append(
            Finding(
                code="quant/concat-ranges",
                message=f"joins {min(widths)[1]!r} with {max(widths)[1]!r}, whose range is {ratio:.0f} × wider",
                severity=Severity.WARNING,
                where=label(unit.head),
                source=origin(unit.head),
                rule="same scale for all inputs",
                hint="the narrow input keeps few of its 256 steps: rescale it in the model, or keep this one float",
            )
        )


def _share_scales(
    units: list[tuple[int, Unit]],
    values: dict[str, ir.Value],
    ranges: Ranges,
    numbers: Numbers,
    result: Assignment,
) -> None:
    """Rules 1 and 2."""
    groups = Groups()
    for name in values:
        groups.add(name)
    fixed: dict[str, QParams] = {}
    for _, unit in units:
        if (params := fixed_params(unit, numbers)) is not None:
            fixed.update({v.name or "": params for v in unit.outputs()})
    writers = {id(unit.tail) for _, unit in units}
    members = {name: _own_extent(value, writers, ranges, numbers.scheme) for name, value in values.items()}
    needs = {n: _Need(extent=members[n], fixed=fixed.get(n)) for n in values}
    for i, unit in units:
        if unit.head.op_type not in numbers.scheme.same_scale_ops:
            continue
        names = [v.name or "" for v in (*unit.data(), *unit.outputs()) if v.name in values]
        constants = {_constant_member(v, unit): ranges.of(v) for v in unit.constants()}
        roots = dict.fromkeys(groups.find(n) for n in names)
        need = _merge([*(needs[r] for r in roots), *(_Need(extent=e) for e in constants.values())], numbers.dtype)
        if need is None:
            result.refused[i] = "its inputs and output must share a scale, and one of them has a fixed other one"
            continue
        members.update(constants)
        groups.join([*names, *constants])
        needs[groups.find(names[0])] = need
    if not result.refused:
        _set_params(groups, members, fixed, values, ranges, numbers, units, result)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Need:
    """What a group must cover, and the parameters that it is held to."""

    extent: Extent | None
    fixed: QParams | None = None


def _merge(needs: list[_Need], dtype: DType) -> _Need | None:
    """The need of a joined group; None when a fixed scale cannot serve the others (rule 2)."""
    wanted = {n.fixed for n in needs if n.fixed is not None}
    extents = [n.extent for n in needs if n.extent is not None]
    extent = union(*extents) if extents else None
    if not wanted:
        return _Need(extent=extent)
    if len(wanted) > 1:
        return None
    params = wanted.pop()
    qmin, qmax = dtype.limits
    step, zero = params.scale[0], params.zero_point[0]
    if extent is not None and (extent[0] < (qmin - zero - 1) * step or extent[1] > (qmax - zero + 1) * step):
        return None
    return _Need(extent=extent, fixed=params)


def _constant_member(value: ir.Value, unit: Unit) -> str:
    """A constant takes part in a group through the unit that reads it; \0 occurs in no value name."""
    return f"{value.name}\0{unit.head.name}"


def _own_extent(value: ir.Value, writers: set[int], ranges: Ranges, scheme: Scheme) -> Extent | None:
    """What a value adds to its group: nothing where a same-scale operator only hands its input on."""
    producer = value.producer()
    hands_on = (
        producer is not None
        and id(producer) in writers
        and producer.op_type != "Pad"
        and producer.op_type in scheme.same_scale_ops
        and within_inputs(producer)
    )
    return None if hands_on else ranges.of(value)


def _set_params(
    groups: Groups,
    members: dict[str, Extent | None],
    fixed: dict[str, QParams],
    values: dict[str, ir.Value],
    ranges: Ranges,
    numbers: Numbers,
    units: list[tuple[int, Unit]],
    result: Assignment,
) -> None:
    first, second = _product_operands(units) if numbers.scheme.symmetric_products else (set(), set())
    by_member = {_constant_member(v, u): (v.name or "", u.head.name or "") for _, u in units for v in u.constants()}
    for names in groups.sets().values():
        held = [n for n in names if n in fixed]
        extent = union(*(e for n in names if (e := members[n]) is not None))
        free = activation_params(
            extent,
            numbers.dtype,
            symmetric=numbers.symmetric or not first.isdisjoint(names),
            centred=not second.isdisjoint(names),
            powers=numbers.scheme.power_of_two_scales,
        )
        params = fixed[held[0]] if held else free
        apart = _by_channel(names, extent, values, ranges, numbers, units) if not held else None
        for name in names:
            reason = _reason(name, names, held, extent, values, ranges) + (", a range a channel in it" if apart else "")
            plan = TensorPlan(dtype=numbers.dtype, qparams=apart or params, reason=reason)
            if name in by_member:
                result.constants[by_member[name]] = plan
            else:
                result.activations[name] = plan


def _by_channel(
    names: list[str],
    extent: Extent,
    values: dict[str, ir.Value],
    ranges: Ranges,
    numbers: Numbers,
    units: list[tuple[int, Unit]],
) -> QParams | None:
    """Rule 6."""
    if not numbers.scheme.depthwise_channels or len(names) != 1 or names[0] not in values:
        return None
    value = values[names[0]]
    readers = [unit for _, unit in units if value in unit.data()]
    if value.is_graph_output() or not readers or not all(is_depthwise(unit.head) for unit in readers):
        return None
    extents = ranges.by_channel(value, extent)
    return None if extents is None else channel_params(extents, numbers.dtype, symmetric=numbers.symmetric)


def _product_operands(units: list[tuple[int, Unit]]) -> tuple[set[str], set[str]]:
    """Names of what products of two activations read first, and second (rule 5)."""
    products = [unit.head for _, unit in units if is_activation_product(unit.head)]
    first, second = ({n.inputs[i].name or "" for n in products} for i in (0, 1))  # type: ignore[union-attr]
    return first, second


def _reason(
    name: str, names: list[str], held: list[str], extent: Extent, values: dict[str, ir.Value], ranges: Ranges
) -> str:
    if name in held:
        return "the runtime fixes this operator's output scale"
    if held:
        return f"same scale as {held[0]!r}, which the runtime fixes"
    span = f"[{extent[0]:.6g}, {extent[1]:.6g}]"
    if len(names) > 1:
        return f"one scale for {len(names)} values from {names[0]!r} on: union range {span}"
    return f"{ranges.why(values[name])} {span}"
