"""Run one model file on this machine, with nothing but Python >= 3.9, numpy and the model's runtime.

This file travels inside every bundle and is started on the device; it imports nothing of edgec.

    agent.py info                                   what is installed here
    agent.py run   DIR --out OUT [--threads N]      the goldens of an unpacked bundle, outputs as .npy files
    agent.py check DIR [--threads N]                the same, compared with the outputs the host had
    agent.py bench DIR [--threads N] [--runs N]     latency and memory
    agent.py sustain DIR --seconds S [--threads N]  the same for long: heat, frequency, single-stream summary
    agent.py feed DIR --feeds IN --out OUT          a model's outputs for IN/*.npz, a file each
    agent.py app DIR --app FILE --data IN --out OUT the user's own preprocessing and postprocessing around the model
    agent.py fits MODEL --arena N                   whether it runs in an arena of N bytes
    agent.py arena MODEL                            the smallest arena that TensorFlow Lite Micro runs a model in
    agent.py export MODEL --backend NAME --out OUT  the model as OpenVINO compiles it for a device
    agent.py serve-stdio MODEL --backend NAME       a worker that answers requests on stdin

All that load a TFLite model take --kernels: `default` (with XNNPACK), `builtin` (without), or `reference`.
Every command but the last prints one JSON object on stdout and nothing else there. What fails is reported in it
as {"error": {"code": ..., "message": ..., "hint": ...}}, with exit code 3; a failed check exits with 1.

`serve-stdio`: a message is a 4-byte little-endian length, that many bytes of JSON, then the raw bytes of the
tensors the JSON lists ({"tensors": [{"name", "dtype", "shape"}, ...]}), C order, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import re
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

try:
    import numpy as np
except ImportError as error:
    if __name__ != "__main__":
        raise
    # A device without any runtime has no numpy either: the host must be told so, not shown a traceback.
    message = "numpy cannot be imported: " + str(error)
    sys.stderr.write(message + "\n")
    hint = "install the model's runtime on the device, which brings numpy: pip install ai-edge-litert"
    print(json.dumps({"error": {"code": "runtime-missing", "message": message, "hint": hint}}))
    sys.exit(3)

PROTOCOL = 1
#: A message's JSON is small; anything longer is not a message.
MAX_HEADER_BYTES = 1 << 24
PACKAGES = {"tflite": "ai-edge-litert", "openvino": "openvino"}


class AgentError(Exception):
    """What went wrong, as it goes to the host."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.record = {"code": code, "message": message, "hint": hint}


# ---------------------------------------------------------------------------------------------- runtimes


def _litert_module() -> tuple[str, Any]:
    """LiteRT's interpreter under its new name, then its old one, so that old devices work."""
    try:
        from ai_edge_litert import interpreter

        return "ai-edge-litert", interpreter
    except ImportError as error:
        first = error
    try:
        from tflite_runtime import interpreter

        return "tflite-runtime", interpreter
    except ImportError:
        raise AgentError(
            "runtime-missing",
            f"no TFLite runtime can be imported: {first}",
            "pip install ai-edge-litert",
        ) from first


def _openvino_module() -> Any:
    try:
        import openvino

        return openvino
    except ImportError as error:
        raise AgentError("runtime-missing", f"OpenVINO cannot be imported: {error}", "pip install openvino") from error


def _version(distribution: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


#: Sets of kernels by name, and what TFLite calls the choice.
KERNELS = {"default": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}


class TfliteRuntime:
    """A .tflite file in LiteRT, with its default delegates or another set of kernels."""

    def __init__(self, path: str, threads: int, kernels: str = "default") -> None:
        package, module = _litert_module()
        self.runtime = package + " " + _version(package)
        chosen = {}
        if kernels != "default":  # old runtimes know no choice
            try:
                chosen["experimental_op_resolver_type"] = getattr(module.OpResolverType, KERNELS[kernels])
            except AttributeError as error:
                raise AgentError("kernels", f"{self.runtime} cannot be told which kernels to take") from error
        self._chosen = kernels
        try:
            self._interpreter = module.Interpreter(model_path=path, num_threads=threads, **chosen)
            self._interpreter.allocate_tensors()
        except Exception as error:
            raise AgentError("model-refused", f"LiteRT refuses the model: {error}") from error
        self._map()

    def _map(self) -> None:
        self._inputs = {d["name"]: d for d in self._interpreter.get_input_details()}
        self._outputs = {d["name"]: d for d in self._interpreter.get_output_details()}

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, in the model's order."""
        return list(self._inputs)

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name. Every call starts from the initial state: ONNX models keep none between calls."""
        _check_names(feeds, self._inputs)
        resized = False
        for name, value in feeds.items():
            detail = self._inputs[name]
            if tuple(detail["shape"]) != value.shape:
                self._interpreter.resize_tensor_input(detail["index"], value.shape, strict=True)
                resized = True
        if resized:
            self._interpreter.allocate_tensors()
            self._map()
        # Recurrent operators keep their state in variable tensors.
        self._interpreter.reset_all_variables()
        for name, value in feeds.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], value)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(d["index"]) for name, d in self._outputs.items()}

    def kernels(self) -> dict[str, Any]:
        """Which operators run inside a delegate (XNNPACK) and which in LiteRT's own kernels."""
        try:
            details = self._interpreter._get_ops_details()
        except Exception as error:  # a private call of the runtime: absent in some versions
            return {"delegate": "unknown", "why": str(error)}
        plain = [d for d in details if d["op_name"] != "DELEGATE"]
        partitions = [d for d in details if d["op_name"] == "DELEGATE"]
        producer = {int(t): i for i, d in enumerate(plain) for t in d["outputs"]}
        inside: set[int] = set()
        for partition in partitions:
            border = {int(t) for t in partition["inputs"]}
            wanted = [int(t) for t in partition["outputs"]]
            while wanted:
                tensor = wanted.pop()
                node = producer.get(tensor)
                if tensor in border or node is None or node in inside:
                    continue
                inside.add(node)
                wanted.extend(int(t) for t in plain[node]["inputs"])
        outside: dict[str, int] = {}
        left = []
        names = {int(d["index"]): d["name"] for d in self._interpreter.get_tensor_details()}
        for index, detail in enumerate(plain):
            if index not in inside:
                outside[detail["op_name"]] = outside.get(detail["op_name"], 0) + 1
                made = [int(t) for t in detail["outputs"][:1]]  # some give nothing, and change a variable
                left.append([detail["op_name"], names.get(made[0], "") if made else ""])
        asked = {} if self._chosen == "default" else {"asked_for": self._chosen}
        return {
            **asked,
            "delegate": "XNNPACK" if partitions else "none",
            "partitions": len(partitions),
            "delegated": len(inside),
            "outside": dict(sorted(outside.items())),
            "first_outside": left[:20],
        }


def _micro_module() -> Any:
    try:
        from tflite_micro.python.tflite_micro import runtime

        return runtime
    except ImportError as error:
        raise AgentError(
            "runtime-missing",
            f"TensorFlow Lite Micro's interpreter cannot be imported: {error}",
            "pip install 'edgec[micro]' (wheels for Linux on x86-64)",
        ) from error


@contextlib.contextmanager
def _stderr_of_c() -> Any:
    """What native code writes to file descriptor 2, as a list of lines that fills when the block ends."""
    lines: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as stream:
        os.dup2(stream.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            stream.seek(0)
            lines += [line.strip() for line in stream.read().decode("utf-8", "replace").splitlines() if line.strip()]


class MicroRuntime:
    """A .tflite file in TensorFlow Lite Micro's own interpreter with its reference kernels."""

    #: Untouched memory costs nothing here, and TFLM may crash on an arena that is too small.
    ROOMY_BYTES = 1 << 26

    def __init__(self, path: str, threads: int) -> None:  # noqa: ARG002  # microcontrollers have one
        self._module = _micro_module()
        self.runtime = "tflite-micro " + _version("tflite-micro")
        self._path, self._model = path, Path(path).read_bytes()
        self.inputs, self._outputs = self._names()
        interpreter, complaints = self.interpreter(self.ROOMY_BYTES)
        if interpreter is None:
            said = "; ".join(complaints[:4])
            raise AgentError("model-refused", f"TensorFlow Lite Micro refuses the model: {said}")
        self._interpreter = interpreter

    def _names(self) -> tuple[list[str], list[str]]:
        """Names of inputs and outputs, which the interpreter does not tell."""
        from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

        graph = schema.Model.GetRootAs(self._model, 0).Subgraphs(0)
        inputs = [graph.Tensors(graph.Inputs(i)).Name().decode() for i in range(graph.InputsLength())]
        return inputs, [graph.Tensors(graph.Outputs(i)).Name().decode() for i in range(graph.OutputsLength())]

    def interpreter(self, arena_bytes: int) -> tuple[Any, list[str]]:
        """An interpreter with that arena, or None and what TFLM had to say."""
        with _stderr_of_c() as complaints:
            try:
                return self._module.Interpreter.from_bytes(self._model, arena_size=arena_bytes), complaints
            except RuntimeError as error:
                problem = str(error)
        return None, complaints or [problem]

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name. Every call starts from the initial state."""
        _check_names(feeds, {name: name for name in self.inputs})
        self._interpreter.reset()
        for index, name in enumerate(self.inputs):
            self._interpreter.set_input(feeds[name], index)
        with _stderr_of_c() as complaints:
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                complaints.append(str(error))
                raise AgentError("run-failed", "TensorFlow Lite Micro: " + "; ".join(complaints[:4])) from error
        return {name: np.array(self._interpreter.get_output(i)) for i, name in enumerate(self._outputs)}

    def kernels(self) -> dict[str, Any]:
        """The wheel is built with the reference kernels."""
        return {"delegate": "none", "kernels": "reference"}

    def smallest_arena(self) -> int:
        """The smallest arena (in steps of 16 bytes, TFLM's alignment) that allocates and invokes.

        Searched outwards from what the recording allocator counts. Each size is tried in a process of its own, because
        TFLM may crash on an arena that is too small: that is a no, as its complaint is.
        """
        guess = max(1, -(-self.allocations().get("total", 16) // 16))
        step = 1
        if self._fits(guess):
            low, high = guess - step, guess
            while low > 0 and self._fits(low):
                step *= 2
                low, high = max(0, low - step), low
        else:
            low, high = guess, guess + step
            while not self._fits(high):
                step *= 2
                low, high = high, high + step
                if 16 * high > self.ROOMY_BYTES:
                    raise AgentError("run-failed", "no arena is large enough to run this model")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fits(middle) else (middle, high)
        return 16 * high

    def _fits(self, units: int) -> bool:
        command = [sys.executable, str(Path(__file__).resolve()), "fits", self._path, "--arena", str(16 * units)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return done.returncode == 0

    def allocations(self) -> dict[str, int]:
        """Bytes of the arena by use, as TFLM's recording allocator counts them."""
        with _stderr_of_c() as lines:
            self._interpreter.print_allocations()
        found: dict[str, int] = {}
        for line in lines:
            part = re.search(r"Arena allocation (\w+) (\d+) bytes", line)
            used = re.search(r"\] '([^']+)' used (\d+) bytes", line)
            if part:
                found[part.group(1)] = int(part.group(2))
            elif used:
                found[used.group(1)] = int(used.group(2))
        return found


class OpenvinoRuntime:
    """An OpenVINO IR (or ONNX file), computing in float32 where it computes in float.

    OpenVINO's default is bfloat16 on CPUs that have it, which is not what the model says. `device` (GPU, NPU) is taken
    where it is there; where it is not, the CPU stands in and `kernels` says so.
    """

    device = "CPU"

    def __init__(self, path: str, threads: int) -> None:
        openvino = _openvino_module()
        self.runtime = "openvino " + _version("openvino")
        core = openvino.Core()
        self._present = any(name.partition(".")[0] == self.device for name in core.available_devices)
        chosen = self.device if self._present else "CPU"
        config = {"INFERENCE_PRECISION_HINT": "f32" if chosen == "CPU" else "f16"}
        if chosen == "CPU":
            config.update(INFERENCE_NUM_THREADS=str(threads), NUM_STREAMS="1")
        self.loaded_from = "model"
        try:
            blob = _cached_blob(Path(path), chosen, self.runtime)
            if blob is not None:
                self._compiled = core.import_model(io.BytesIO(blob), chosen, config)
                self.loaded_from = "cache"
            else:
                self._compiled = core.compile_model(path, chosen, config)
        except Exception as error:
            raise AgentError("model-refused", f"OpenVINO refuses the model: {error}") from error
        self._chosen = chosen
        self._request = self._compiled.create_infer_request()
        self._inputs = _by_all_names(self._compiled.inputs)
        self._outputs = list(self._compiled.outputs)

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, in the model's order."""
        return [port.get_any_name() for port in self._compiled.inputs]

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by every name they have."""
        _check_names(feeds, self._inputs)
        result = self._request.infer({self._inputs[name]: value for name, value in feeds.items()})
        outputs: dict[str, Any] = {}
        for port in self._outputs:
            # A copy: the request's own buffer is overwritten by the next call.
            value = np.array(result[port])
            for name in port.get_names():
                outputs[name] = value
        return outputs

    def kernels(self) -> dict[str, Any]:
        """Number of executed layers in each precision (u8/i8 layers are named by their run-time precision)."""
        counts: dict[str, int] = {}
        try:
            for node in self._compiled.get_runtime_model().get_ops():
                info = node.get_rt_info()
                if "runtimePrecision" not in info or _text(info["layerType"]) in ("Input", "Output", "Const"):
                    continue
                key = _text(info["runtimePrecision"])
                counts[key] = counts.get(key, 0) + 1
        except Exception as error:
            return {"delegate": "unknown", "why": str(error)}
        found = {"delegate": self._chosen, "layers": dict(sorted(counts.items())), "loaded_from": self.loaded_from}
        if not self._present:
            found["stands_in_for"] = self.device
        return found

    def export(self, out: Path) -> dict[str, Any]:
        """Write the compiled model, and say for what it is good."""
        out.mkdir(parents=True, exist_ok=True)
        made = self._compiled.export_model()  # bytes, or a stream in newer versions
        (out / BLOB).write_bytes(made.getvalue() if hasattr(made, "getvalue") else made)
        facts = {"device": self._chosen, "wanted": self.device, "runtime": self.runtime}
        (out / BLOB_FACTS).write_text(json.dumps(facts, sort_keys=True) + "\n")
        return facts


#: A compiled model beside the model file, and the device and runtime that it belongs to.
BLOB, BLOB_FACTS = "openvino.blob", "openvino.blob.json"


def _cached_blob(model: Path, device: str, runtime: str) -> Any:
    """The compiled model in the bundle when it was made by this very runtime for this device; None otherwise."""
    try:
        facts = json.loads((model.parent / BLOB_FACTS).read_bytes())
        if facts.get("device") == device and facts.get("runtime") == runtime:
            return (model.parent / BLOB).read_bytes()
    except (OSError, ValueError):
        pass
    return None


class OpenvinoGpu(OpenvinoRuntime):
    """OpenVINO on an Intel GPU."""

    device = "GPU"


class OpenvinoNpu(OpenvinoRuntime):
    """OpenVINO on an Intel NPU."""

    device = "NPU"


def _text(value: Any) -> str:
    """A value of OpenVINO's run-time information, which comes wrapped."""
    return str(getattr(value, "value", value))


#: What a model may be run with; a bundle's `engine`, or else its `backend`, names one.
RUNTIMES = {
    "tflite": TfliteRuntime,
    "tflite-micro": MicroRuntime,
    "openvino": OpenvinoRuntime,
    "openvino:GPU": OpenvinoGpu,
    "openvino:NPU": OpenvinoNpu,
}
_MODULES = {"tflite": _litert_module, "tflite-micro": _micro_module}


def _by_all_names(ports: Any) -> dict[str, Any]:
    return {name: port for port in ports for name in port.get_names()}


def _check_names(feeds: dict[str, Any], known: dict[str, Any]) -> None:
    unknown = [name for name in feeds if name not in known]
    if unknown:
        raise AgentError("io-mismatch", f"the model has no input {unknown[0]!r}; it has {sorted(known)}")
    # A runtime would compute with whatever an unfed input's memory holds.
    fed = {id(known[name]) for name in feeds}
    missing = [name for name in known if id(known[name]) not in fed]
    if missing:
        raise AgentError("io-mismatch", f"input {missing[0]!r} is not given")


def load(path: str, backend: str, threads: int, kernels: str = "default") -> Any:
    """The model, ready to run. Raises AgentError when the runtime or the file will not do."""
    if backend not in RUNTIMES:
        raise AgentError("runtime-missing", f"this agent has no runtime for {backend!r} models")
    if not Path(path).is_file():
        raise AgentError("model-missing", f"there is no model file {path}")
    if kernels == "default":
        return RUNTIMES[backend](path, threads)
    if backend != "tflite":
        raise AgentError("kernels", f"{backend!r} has one set of kernels only", "leave out --kernels")
    return TfliteRuntime(path, threads, kernels)


# ---------------------------------------------------------------------------------------------- memory


def _status_kib(key: str) -> int:
    """A field of /proc/self/status in bytes; 0 where there is no such file.

    Not getrusage: its maximum survives exec, so a child of a large process starts with its parent's.
    """
    try:
        with Path("/proc/self/status").open() as status:
            for line in status:
                if line.startswith(key + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


# ---------------------------------------------------------------------------------------------- bundle folder


class Unpacked:
    """A bundle unpacked into a folder: manifest, model, goldens."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        try:
            self.manifest = json.loads((self.folder / "manifest.json").read_bytes())
        except (OSError, ValueError) as error:
            raise AgentError("bundle-unreadable", f"no manifest can be read in {folder}: {error}") from error
        self.inputs = [io["artifact"]["name"] for io in self.manifest["inputs"]]
        self.outputs = [io["artifact"]["name"] for io in self.manifest["outputs"]]

    def load(self, threads: int, kernels: str = "default") -> Any:
        """The model in its runtime."""
        return load(str(self.folder / self.manifest["model"]), self.engine, threads, kernels)

    @property
    def engine(self) -> str:
        """What runs the model here; bundles made before there was a choice name their backend only."""
        return str(self.manifest.get("engine") or self.manifest["backend"])

    def feeds(self, golden: int) -> dict[str, Any]:
        """Inputs of one golden, as the model wants them."""
        return {name: self._read(golden, "input", i) for i, name in enumerate(self.inputs)}

    def expected(self, golden: int) -> list[Any]:
        """Outputs that the host had for one golden."""
        return [self._read(golden, "raw", i) for i in range(len(self.outputs))]

    def pick(self, outputs: dict[str, Any]) -> list[Any]:
        """Outputs in the manifest's order."""
        missing = [name for name in self.outputs if name not in outputs]
        if missing:
            raise AgentError("io-mismatch", f"the model has no output {missing[0]!r}; it has {sorted(outputs)}")
        return [outputs[name] for name in self.outputs]

    def _read(self, golden: int, kind: str, index: int) -> Any:
        path = self.folder / "golden" / f"{golden:03d}" / f"{kind}.{index}.npy"
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise AgentError("bundle-unreadable", f"cannot read {path}: {error}") from error


# ---------------------------------------------------------------------------------------------- commands


def info(_: argparse.Namespace) -> dict[str, Any]:
    """What this machine is and which runtimes it has, without loading any model."""
    names = ("ai-edge-litert", "tflite-runtime", "tflite-micro", "openvino", "numpy")
    return {
        "agent": PROTOCOL,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "cpus": os.cpu_count() or 1,
        "packages": {name: version for name in names for version in [_version(name)] if version},
    }


def _run_goldens(args: argparse.Namespace) -> tuple[Unpacked, Any, list[list[Any]]]:
    bundle = Unpacked(args.folder)
    model = bundle.load(args.threads, args.kernels)
    results = []
    for golden in range(bundle.manifest["goldens"]):
        try:
            results.append(bundle.pick(model.run(bundle.feeds(golden))))
        except AgentError:
            raise
        except Exception as error:
            raise AgentError("run-failed", f"golden {golden}: {error}") from error
    return bundle, model, results


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the goldens; outputs go to OUT/<golden>.<output>.npy."""
    bundle, model, results = _run_goldens(args)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for golden, outputs in enumerate(results):
        for index, value in enumerate(outputs):
            np.save(out / f"{golden:03d}.{index}.npy", value, allow_pickle=False)
    return {
        "goldens": len(results),
        "runtime": model.runtime,
        "kernels": model.kernels(),
        "peak_rss_bytes": _status_kib("VmHWM"),
        "model": bundle.manifest["name"],
    }


def check(args: argparse.Namespace) -> dict[str, Any]:
    """Compare the goldens with what the host had: integers within `--steps`, floats within `--tolerance`."""
    bundle, model, results = _run_goldens(args)
    failures = []
    worst = 0.0
    for golden, outputs in enumerate(results):
        wanted = bundle.expected(golden)
        for index, name in enumerate(bundle.outputs):
            actual, expected = outputs[index], wanted[index]
            problem, size = _compare(expected, actual, args.steps, args.tolerance)
            worst = max(worst, size)
            if problem:
                failures.append(f"golden {golden}, output {name}: {problem}")
    return {
        "passed": not failures,
        "goldens": len(results),
        "worst": worst,
        "failures": failures[:10],
        "runtime": model.runtime,
        "kernels": model.kernels(),
    }


def _compare(expected: Any, actual: Any, steps: int, tolerance: float) -> tuple[str, float]:
    texts = expected.dtype.kind == actual.dtype.kind == "U"  # of any length
    if expected.shape != actual.shape or (expected.dtype != actual.dtype and not texts):
        return f"{actual.dtype}{actual.shape} where {expected.dtype}{expected.shape} was expected", float("1e30")
    if expected.size == 0:
        return "", 0.0
    if texts:
        wrong = int(np.sum(expected != actual))
        return (f"{wrong} strings differ" if wrong else ""), float(wrong)
    if expected.dtype.kind in "iub":
        largest = float(np.max(np.abs(expected.astype(np.int64) - actual.astype(np.int64))))
        return ("" if largest <= steps else f"{largest:.0f} steps off"), largest
    peak = float(np.max(np.abs(expected))) or 1.0
    relative = float(np.max(np.abs(expected.astype(np.float64) - actual.astype(np.float64)))) / peak
    if not relative <= tolerance:  # written so that NaN fails
        return f"{relative:.3g} off, relative to the largest value", relative if relative == relative else 1e30
    return "", relative


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Latency over `--runs` runs after `--warmup` ones, never longer than `--max-seconds` once 5 are done."""
    bundle = Unpacked(args.folder)
    feeds = bundle.feeds(0)
    # The runtime's own code first: what follows is the model's share of time and memory.
    _MODULES.get(bundle.engine, _openvino_module)()
    before = _status_kib("VmRSS")
    start = time.perf_counter()
    model = bundle.load(args.threads, args.kernels)
    load_ms = (time.perf_counter() - start) * 1e3
    start = time.perf_counter()
    model.run(feeds)
    first_ms = (time.perf_counter() - start) * 1e3
    for _ in range(args.warmup):
        model.run(feeds)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < args.runs and (len(times) < 5 or time.perf_counter() - began < args.max_seconds):
        start = time.perf_counter()
        model.run(feeds)
        times.append((time.perf_counter() - start) * 1e3)
    peak = _status_kib("VmHWM")
    return {
        "threads": args.threads,
        "runs": len(times),
        "load_ms": load_ms,
        "first_ms": first_ms,
        "min_ms": min(times),
        "median_ms": float(np.percentile(times, 50)),
        "p90_ms": float(np.percentile(times, 90)),
        "p95_ms": float(np.percentile(times, 95)),
        "p99_ms": float(np.percentile(times, 99)),
        "peak_rss_bytes": peak,
        "model_rss_bytes": max(0, peak - before),
        "runtime": model.runtime,
        "kernels": model.kernels(),
    }


#: Points of a long run that are reported, at most.
SHOWN_SAMPLES = 120


def sustain(args: argparse.Namespace) -> dict[str, Any]:
    """Run for `--seconds` without a pause, looking at temperatures and frequencies once a second.

    In the last quarter the device is as warm as it gets: its throughput beside the first quarter's tells throttling.
    """
    bundle = Unpacked(args.folder)
    feeds = bundle.feeds(0)
    model = bundle.load(args.threads, args.kernels)
    for _ in range(args.warmup):
        model.run(feeds)
    times: list[float] = []
    ends: list[float] = []
    samples = [{"at_s": 0.0, **_climate()}]
    began = now = time.perf_counter()
    while now - began < args.seconds or not times:
        model.run(feeds)
        end = time.perf_counter()
        times.append((end - now) * 1e3)
        ends.append(end - began)
        now = end
        if now - began - samples[-1]["at_s"] >= 1.0:
            samples.append({"at_s": now - began, **_climate()})
            now = time.perf_counter()  # looking takes time that is not the model's
    duration = ends[-1]
    samples.append({"at_s": duration, **_climate()})
    step = max(1, -(-len(samples) // SHOWN_SAMPLES))
    return {
        "threads": args.threads,
        "runs": len(times),
        "duration_s": duration,
        "median_ms": float(np.percentile(times, 50)),
        "p90_ms": float(np.percentile(times, 90)),
        "p99_ms": float(np.percentile(times, 99)),
        "begin_per_s": _rate(times, ends, 0.0, duration / 4),
        "end_per_s": _rate(times, ends, duration * 3 / 4, duration),
        "samples": samples[::step],
        "last": samples[-1],
        "runtime": model.runtime,
        "kernels": model.kernels(),
    }


def _rate(times: list[float], ends: list[float], begin: float, end: float) -> float:
    """Runs a second of the model's own time, of those that ended between two moments; of all where there are none."""
    inside = [t for t, at in zip(times, ends) if begin < at <= end] or times
    return 1e3 * len(inside) / sum(inside)


def _climate() -> dict[str, Any]:
    """Temperatures (°C, by zone) and frequencies (MHz, by core), where /sys shows them."""
    celsius = {}
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        value = _number(zone / "temp")
        if value is not None:
            celsius[zone.name] = value / 1e3
    cores = sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    mhz = {file.parts[-3]: value / 1e3 for file in cores for value in [_number(file)] if value is not None}
    return {"celsius": celsius, "mhz": mhz}


def _number(path: Path) -> Any:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # some zones refuse to be read
        return None


def feed(args: argparse.Namespace) -> dict[str, Any]:
    """Run the model on every .npz in a folder; arrays are called by the inputs' places, as in the manifest."""
    bundle = Unpacked(args.folder)
    model = bundle.load(args.threads, args.kernels)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    seconds, count = 0.0, 0
    for path in sorted(Path(args.feeds).glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            given = {name: arrays[str(i)] for i, name in enumerate(bundle.inputs)}
        results: dict[str, list[Any]] = {}
        for row in range(len(next(iter(given.values())))):
            start = time.perf_counter()
            outputs = bundle.pick(model.run({name: value[row] for name, value in given.items()}))
            seconds += time.perf_counter() - start
            count += 1
            for i, value in enumerate(outputs):
                results.setdefault(str(i), []).append(value)
        stacked: dict[str, Any] = {name: np.stack(rows) for name, rows in results.items()}
        np.savez(out / path.name, **stacked)
    return {"runs": count, "seconds": seconds, "runtime": model.runtime, "kernels": model.kernels()}


def app(args: argparse.Namespace) -> dict[str, Any]:
    """What the user's application does to each file, stage by stage, written down for the host to judge.

    FILE has `preprocess(path)`, which gives what the model is fed (an array, or one for each input by name), and may
    have `postprocess(outputs)`, which gives the answer for the outputs (an array, or one for each output by name).
    Of `IN/a.jpg` become `OUT/a.jpg.pre.npy`, `.raw.npy` and `.post.json`; of several inputs or outputs
    `.pre.0.npy`, `.pre.1.npy`, in the manifest's order. What fails stands in `OUT/a.jpg.error.json`.
    """
    bundle = Unpacked(args.folder)
    user = _user_module(Path(args.app))
    model = bundle.load(args.threads, args.kernels)
    data, out = Path(args.data), Path(args.out)
    files = sorted(path for path in data.rglob("*") if path.is_file())
    failed = 0
    for path in files:
        place = out / path.relative_to(data)
        place.parent.mkdir(parents=True, exist_ok=True)
        stage = "preprocess"
        try:
            value = user.preprocess(str(path))
            given = _in_order(value, bundle.inputs)
            _write_stage(place, "pre", given)
            stage = "run"
            outputs = bundle.pick(model.run(dict(zip(bundle.inputs, given))))
            _write_stage(place, "raw", outputs)
            stage = "postprocess"
            if hasattr(user, "postprocess"):
                told = outputs[0] if len(outputs) == 1 else dict(zip(bundle.outputs, outputs))
                answer = json.dumps(user.postprocess(told), default=_plain)
                place.with_name(place.name + ".post.json").write_text(answer + "\n", encoding="utf-8")
        except Exception as error:
            failed += 1
            problem = {"stage": stage, "message": f"{type(error).__name__}: {error}"}
            place.with_name(place.name + ".error.json").write_text(json.dumps(problem) + "\n", encoding="utf-8")
    return {"files": len(files), "failed": failed, "runtime": model.runtime, "kernels": model.kernels()}


def _user_module(path: Path) -> Any:
    """The user's file, which may import what lies beside it."""
    sys.path.insert(0, str(path.resolve().parent))
    scope = ModuleType("edgec_app")
    scope.__file__ = str(path)
    try:
        source = path.read_text(encoding="utf-8")
        exec(compile(source, str(path), "exec"), scope.__dict__)  # noqa: S102  it is the user's own program
    except Exception as error:
        raise AgentError(
            "app", f"{path.name} cannot be loaded: {type(error).__name__}: {error}", "it runs on the device's Python"
        ) from error
    if not callable(getattr(scope, "preprocess", None)):
        raise AgentError("app", f"{path.name} has no function preprocess(path)", "define it; postprocess is optional")
    return scope


def _in_order(value: Any, names: list[str]) -> list[Any]:
    """Arrays for the names, from one array or a dictionary of them."""
    given = value if isinstance(value, dict) else {names[0]: value}
    missing = [name for name in names if name not in given]
    if missing:
        raise AgentError("app", f"preprocess gave nothing for input {missing[0]!r}; the inputs are {names}")
    return [np.asarray(given[name]) for name in names]


def _write_stage(place: Path, stage: str, values: list[Any]) -> None:
    for i, value in enumerate(values):
        middle = stage if len(values) == 1 else f"{stage}.{i}"
        np.save(place.with_name(f"{place.name}.{middle}.npy"), value, allow_pickle=False)


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as JSON knows them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"postprocess gave a {type(value).__name__}, which JSON cannot hold")


def arena(args: argparse.Namespace) -> dict[str, Any]:
    """The smallest arena that a model runs in, and what it is used for."""
    model = MicroRuntime(args.model, 1)
    return {"arena_bytes": model.smallest_arena(), "allocations": model.allocations(), "runtime": model.runtime}


def fits(args: argparse.Namespace) -> dict[str, Any]:
    """Whether a model runs once in an arena of a given size."""
    interpreter, complaints = MicroRuntime(args.model, 1).interpreter(args.arena)
    if interpreter is None:
        return {"passed": False, "why": complaints[:4]}
    interpreter.invoke()
    return {"passed": True}


def export(args: argparse.Namespace) -> dict[str, Any]:
    """Compile a model with OpenVINO and write the result into OUT."""
    model = load(args.model, args.backend, 1)
    if not isinstance(model, OpenvinoRuntime):
        raise AgentError("io-mismatch", f"{args.backend} models are not compiled ahead of time")
    return model.export(Path(args.out))


# ---------------------------------------------------------------------------------------------- worker


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """One message: its JSON and its tensors. Raises EOFError when the other side is gone."""
    (size,) = struct.unpack("<I", _read_exactly(stream, 4))
    if size > MAX_HEADER_BYTES:
        raise EOFError
    header = json.loads(_read_exactly(stream, size))
    tensors = {}
    for entry in header.get("tensors", []):
        dtype = np.dtype(entry["dtype"])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        data = _read_exactly(stream, count * dtype.itemsize)
        tensors[entry["name"]] = np.frombuffer(data, dtype).reshape(entry["shape"])
    return header, tensors


def write_message(stream: BinaryIO, header: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Send one message."""
    arrays = {name: np.ascontiguousarray(value).reshape(np.shape(value)) for name, value in tensors.items()}
    entries = [{"name": n, "dtype": a.dtype.str, "shape": list(a.shape)} for n, a in arrays.items()]
    data = json.dumps({**header, "tensors": entries}).encode()
    stream.write(struct.pack("<I", len(data)) + data)
    for array in arrays.values():
        stream.write(array.tobytes())
    stream.flush()


def serve_stdio(args: argparse.Namespace) -> None:
    """Answer requests until stdin ends. Whatever a runtime prints goes to stderr, never into the protocol."""
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    try:
        model = load(args.model, args.backend, args.threads, args.kernels)
        hello = {"protocol": PROTOCOL, "runtime": model.runtime, "inputs": model.inputs}
    except AgentError as error:
        write_message(reply, {"error": error.record}, {})
        return
    write_message(reply, hello, {})
    while True:
        try:
            header, feeds = read_message(requests)
        except EOFError:
            return
        try:
            if header.get("command") == "kernels":
                write_message(reply, {"kernels": model.kernels()}, {})
                continue
            start, cpu = time.perf_counter(), time.process_time()
            outputs = model.run(feeds)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        except AgentError as error:
            write_message(reply, {"error": error.record}, {})
        except Exception as error:
            write_message(reply, {"error": AgentError("run-failed", str(error)).record}, {})
        else:
            write_message(reply, {"seconds": seconds, "cpu_seconds": cpu}, outputs)


# ---------------------------------------------------------------------------------------------- command line


#: Commands that take an unpacked bundle, and the options of each: a default, or None where it must be given.
_BUNDLE_COMMANDS: Any = (
    (run, {"out": None}),
    (check, {"steps": 2, "tolerance": 1e-2}),
    (bench, {"runs": 50, "warmup": 5, "max-seconds": 10.0}),
    (sustain, {"seconds": 60.0, "warmup": 5}),
    (feed, {"feeds": None, "out": None}),
    (app, {"app": None, "data": None, "out": None}),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run an edgec bundle on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info").set_defaults(call=info)
    for call, own in _BUNDLE_COMMANDS:
        command = commands.add_parser(call.__name__)
        command.add_argument("folder")
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--kernels", choices=sorted(KERNELS), default="default")
        command.set_defaults(call=call)
        for name, default in own.items():
            given = {"required": True} if default is None else {"type": type(default), "default": default}
            command.add_argument(f"--{name}", **given)
    smallest = commands.add_parser("arena")
    smallest.add_argument("model")
    smallest.set_defaults(call=arena)
    tried = commands.add_parser("fits")
    tried.add_argument("model")
    tried.add_argument("--arena", type=int, required=True)
    tried.set_defaults(call=fits)
    compiled = commands.add_parser("export")
    compiled.add_argument("model")
    compiled.add_argument("--backend", required=True)
    compiled.add_argument("--out", required=True)
    compiled.set_defaults(call=export)
    serve = commands.add_parser("serve-stdio")
    serve.add_argument("model")
    serve.add_argument("--backend", required=True)
    serve.add_argument("--threads", type=int, default=1)
    serve.add_argument("--kernels", choices=sorted(KERNELS), default="default")
    return parser


def main(argv: list[str]) -> int:
    """Run one command; the result's exit code."""
    args = _parser().parse_args(argv)
    if args.command == "serve-stdio":
        serve_stdio(args)
        return 0
    result_stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        result: dict[str, Any] = args.call(args)
        code = 0 if result.get("passed", True) else 1
    except AgentError as error:
        result, code = {"error": error.record}, 3
    except Exception as error:
        result, code = {"error": AgentError("run-failed", f"{type(error).__name__}: {error}").record}, 3
    result_stream.write(json.dumps(result, sort_keys=True) + "\n")
    result_stream.close()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
