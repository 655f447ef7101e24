"""The package for C++ and C, as `cmake --install` leaves it, seen from outside.

FASTLSTM_CPP_BUILD names a folder in which CMake has built the libraries and their tests:

    cmake --preset release && cmake --build --preset release
    FASTLSTM_CPP_BUILD=build/release pytest tests/test_cpp_package.py
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
import wave
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = os.environ.get("FASTLSTM_CPP_BUILD")

pytestmark = [
    pytest.mark.skipif(not BUILD, reason="FASTLSTM_CPP_BUILD names no folder with the libraries"),
    pytest.mark.xdist_group("cpp_package"),  # one installs and builds for all
]

OK, INVALID_ARGUMENT, WRONG_DTYPE, NOT_READABLE, BAD_FILE, UNSUPPORTED = range(6)
FLOATS = {"float32": ("f32", c_float), "float64": ("f64", c_double)}
# What names of ours begin with.
OURS = ("fastlstm", "_ZN8fastlstm", "_ZNK8fastlstm")
# Whatever a compiler might say of a header.
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]


def run(*command: object, cwd: Path | None = None, **more: Any) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, **more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is installed."""
    path = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", BUILD, "--prefix", path, cwd=ROOT)
    return path


@pytest.fixture(scope="module")
def lib_dir(prefix: Path) -> Path:
    (library,) = prefix.glob("lib*/**/libfastlstm.a")
    return library.parent


# --- what is installed ----------------------------------------------------------------------------


def test_what_is_installed(prefix: Path, lib_dir: Path) -> None:
    version = fastlstm.__version__
    files = {
        str(path.relative_to(lib_dir if lib_dir in path.parents else prefix))
        for path in prefix.rglob("*")
        if not path.is_dir()
    }
    config = "cmake/fastlstm/fastlstm"
    assert files == {
        "include/fastlstm/fastlstm.h",
        "include/fastlstm/fastlstm.hpp",
        "libfastlstm.a",
        "libfastlstm.so",
        f"libfastlstm.so.{version}",
        f"libfastlstm.so.{version.rpartition('.')[0]}",
        "pkgconfig/fastlstm.pc",
        f"{config}Config.cmake",
        f"{config}ConfigVersion.cmake",
        f"{config}Targets.cmake",
        f"{config}Targets-release.cmake",
    }
    texts = [path for path in prefix.rglob("*") if path.suffix in (".cmake", ".pc", ".h", ".hpp")]
    assert all(str(ROOT) not in path.read_text() for path in texts)


def test_the_shared_library_shows_its_functions_alone(prefix: Path, lib_dir: Path) -> None:
    lines = run("nm", "-D", "--defined-only", lib_dir / "libfastlstm.so").splitlines()
    shown = {line.split()[2].partition("@")[0] for line in lines if " A " not in line}
    header = (prefix / "include/fastlstm/fastlstm.h").read_text()
    declared = set(re.findall(r"\b(fastlstm_\w+)\(", header))
    assert len(declared) > 25
    assert shown == declared


def test_a_plugin_does_not_show_the_static_library(
    prefix: Path, lib_dir: Path, tmp_path: Path
) -> None:
    code = '#include "fastlstm/fastlstm.hpp"\nauto load = fastlstm::load<float>;\n'
    (tmp_path / "plugin.cpp").write_text(code)
    options = ["-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{prefix}/include"]
    run("g++", *options, "plugin.cpp", lib_dir / "libfastlstm.a", "-o", "plugin.so", cwd=tmp_path)
    shown = run("nm", "-D", "--defined-only", tmp_path / "plugin.so").splitlines()
    # Templates of the C++ library that its classes use are shown, as those of any.
    assert not [line for line in shown if line.split()[2].startswith(OURS)]


@pytest.mark.parametrize(
    ("compiler", "standard", "name"),
    [
        ("gcc", "c99", "fastlstm.h"),
        ("g++", "c++17", "fastlstm.h"),
        ("g++", "c++17", "fastlstm.hpp"),
    ],
)
def test_headers_compile_without_a_warning(
    compiler: str, standard: str, name: str, prefix: Path, tmp_path: Path
) -> None:
    source = tmp_path / ("a.c" if compiler == "gcc" else "a.cpp")
    source.write_text(2 * f'#include "fastlstm/{name}"\n')
    # Not -isystem, in whose headers nothing is warned of.
    run(compiler, f"-std={standard}", *STRICT, f"-I{prefix}/include", "-fsyntax-only", source)


def test_headers_leave_no_macros(prefix: Path) -> None:
    header = (prefix / "include/fastlstm/fastlstm.hpp").read_text()
    library = re.findall(r"#include <.*>\n", header)
    assert library

    def macros(text: str) -> set[str]:
        command = ["g++", "-std=c++17", f"-I{prefix}/include", "-dM", "-E", "-xc++", "-"]
        return set(re.findall(r"#define (\w+)", run(*command, input=text)))

    own = macros("#include <fastlstm/fastlstm.hpp>\n") - macros(
        "".join(library) + "#include <stddef.h>\n#include <stdint.h>\n"
    )
    assert own == set()


# --- projects outside -----------------------------------------------------------------------------


def block(marker: str) -> str:
    """The code of docs/cpp.md after a mark."""
    text = (ROOT / "docs/cpp.md").read_text()
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def example(tmp_path: Path) -> tuple[Path, list[str]]:
    """The project of docs/cpp.md beside its model, and what it must print."""
    layer = fastlstm.LSTM(2, 5, seed=0)
    layer.save(tmp_path / "model.safetensors")
    (tmp_path / "CMakeLists.txt").write_text(block("project"))
    (tmp_path / "main.cpp").write_text(block("main.cpp"))
    (tmp_path / "main.c").write_text(block("main.c"))
    stream = layer.stream()
    x = np.full((1, 2), 0.5, np.float32)
    return tmp_path, [f"{stream.step(x)[0, 0]:.9g}" for _ in range(3)]


@pytest.mark.parametrize("target", ["fastlstm::fastlstm", "fastlstm::shared"])
def test_a_project_finds_it_and_streams(
    target: str, prefix: Path, example: tuple[Path, list[str]]
) -> None:
    folder, wanted = example
    project = (folder / "CMakeLists.txt").read_text()
    (folder / "CMakeLists.txt").write_text(project.replace("fastlstm::fastlstm", target))
    run("cmake", "-S", folder, "-B", folder / "b", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", folder / "b")
    assert run(folder / "b/example", cwd=folder).split() == wanted


def test_another_minor_version_is_not_found(prefix: Path, tmp_path: Path) -> None:
    major, minor, _ = fastlstm.__version__.split(".")
    project = re.sub(r"fastlstm \d[.]\d+", f"fastlstm {major}.{int(minor) + 1}", block("project"))
    (tmp_path / "CMakeLists.txt").write_text(project)
    command = ["cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={prefix}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "compatible with requested version" in done.stderr


@pytest.mark.parametrize("compiler", ["g++", "gcc"])
@pytest.mark.parametrize("kind", ["shared", "static"])
def test_pkg_config(
    compiler: str, kind: str, lib_dir: Path, example: tuple[Path, list[str]]
) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    folder, wanted = example
    environment = {**os.environ, "PKG_CONFIG_PATH": str(lib_dir / "pkgconfig")}
    static = ["--static"] if kind == "static" else []
    options = run("pkg-config", *static, "--cflags", "--libs", "fastlstm", env=environment).split()
    if kind == "static":
        options = [str(lib_dir / "libfastlstm.a") if o == "-lfastlstm" else o for o in options]
    else:
        options.append(f"-Wl,-rpath,{lib_dir}")
    source = "main.cpp" if compiler == "g++" else "main.c"
    run(compiler, source, *options, "-o", "example", cwd=folder)
    assert run(folder / "example", cwd=folder).split() == wanted[: 3 if compiler == "g++" else 1]


SUBDIRECTORY = {
    "add_subdirectory": f"add_subdirectory({ROOT} fastlstm)",
    "FetchContent": f"""include(FetchContent)
FetchContent_Declare(fastlstm SOURCE_DIR {ROOT})
FetchContent_MakeAvailable(fastlstm)""",
}


@pytest.mark.parametrize("way", SUBDIRECTORY)
def test_a_part_of_another_project(way: str, example: tuple[Path, list[str]]) -> None:
    """Configured without Python, and compiled as far as its own file: the library takes minutes."""
    folder, _ = example
    project = re.sub(r"find_package\(.*\)", lambda _: SUBDIRECTORY[way], block("project"))
    (folder / "CMakeLists.txt").write_text(project)
    without = [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in ("Python", "pybind11")]
    run("cmake", "-S", folder, "-B", folder / "b", "-GUnix Makefiles", *without)
    run("make", "main.o", cwd=folder / "b")
    assert "install" not in run("make", "help", cwd=folder / "b")
    cache = (folder / "b/CMakeCache.txt").read_text()
    assert "FASTLSTM_PYTHON:BOOL=OFF" in cache


# --- the C functions, beside Python's -------------------------------------------------------------

LAYERS: dict[str, Callable[[str], Any]] = {
    "lstm": lambda dtype: fastlstm.LSTM(3, 20, 2, bidirectional=True, dtype=dtype, seed=0),
    "projection": lambda dtype: fastlstm.LSTM(
        3, 20, 2, proj_size=7, zoneout=(0.1, 0.2), dtype=dtype, seed=0
    ),
    "functions": lambda dtype: fastlstm.LSTM(
        *(3, 20),
        activations=("HardSigmoid", "Softsign", ("LeakyRelu", 0.3)),
        clip=1.5,
        peepholes=True,
        input_forget=True,
        dtype=dtype,
        seed=0,
    ),
    "layer norm": lambda dtype: fastlstm.LSTM(3, 20, layer_norm=True, dtype=dtype, seed=0),
    "reverse": lambda dtype: fastlstm.LSTM(3, 20, bias=False, reverse=True, dtype=dtype, seed=0),
    "merged": lambda dtype: fastlstm.GRU(
        3, 20, bidirectional=True, merge="mul", dtype=dtype, seed=0
    ),
    "gru": lambda dtype: fastlstm.GRU(
        3, 20, 3, zoneout=0.1, dropout=0.5, batch_first=True, dtype=dtype, seed=0
    ),
    "reset before": lambda dtype: fastlstm.GRU(
        3, 20, reset_after=False, activations=("Sigmoid", ("ScaledTanh", 1.5, 0.5)), dtype=dtype,
        seed=0,
    ),
    "rnn": lambda dtype: fastlstm.RNN(3, 20, 2, dtype=dtype, seed=0),
    "relu": lambda dtype: fastlstm.RNN(3, 20, nonlinearity="relu", dtype=dtype, seed=0),
    "relu, clip": lambda dtype: fastlstm.RNN(
        3, 20, nonlinearity="relu", clip=0.5, dtype=dtype, seed=0
    ),
    "function": lambda dtype: fastlstm.RNN(
        3, 20, activations=(("Elu", 0.5),), dtype=dtype, seed=0
    ),
}  # fmt: skip


class Tensor(ctypes.Structure):
    _fields_ = (
        ("name", c_char_p),
        ("data", c_void_p),
        ("rows", c_int64),
        ("columns", c_int64),
    )


class Library:
    """The functions of fastlstm.h, with their types."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        made, why = POINTER(c_void_p), (c_char_p, c_size_t)
        for name, result, arguments in (
            ("version", c_char_p, ()),
            ("isa", c_char_p, ()),
            ("status_name", c_char_p, (c_int,)),
            ("set_num_threads", c_int, (c_int,)),
            ("stack_load", c_int, (c_char_p, c_char_p, made, *why)),
            ("stack_load_bytes", c_int, (c_char_p, c_size_t, c_char_p, made, *why)),
            ("stack_create", c_int, (c_char_p, POINTER(Tensor), c_size_t, made, *why)),
            ("stack_free", None, (c_void_p,)),
            *((f"stack_{n}", c_int64, (c_void_p,)) for n in SIZES),
            ("stack_dtype", c_int, (c_void_p,)),
            ("stack_state_size", c_int64, (c_void_p, c_int64)),
            ("stack_state_part_name", c_char_p, (c_void_p, c_int64)),
            ("stack_state_part_width", c_int64, (c_void_p, c_int64)),
            *((f"stack_run_{f}", c_int, (c_void_p, c_int64, c_int64, c_int, *5 * [c_void_p]))
              for f in ("f32", "f64")),
            ("stream_create", c_int, (c_void_p, c_int64, made, *why)),
            ("stream_free", None, (c_void_p,)),
            ("stream_reset", c_int, (c_void_p,)),
            *((f"stream_{n}_{f}", c_int, a) for f in ("f32", "f64") for n, a in (
                ("step", 3 * (c_void_p,)),
                ("process", (c_void_p, c_int64, c_void_p, c_void_p)),
                ("get_state", 2 * (c_void_p,)),
                ("set_state", 2 * (c_void_p,)),
            )),
        ):  # fmt: skip
            function = getattr(self.c, f"fastlstm_{name}")
            function.restype, function.argtypes = result, arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self.c, f"fastlstm_{name}")

    def make(self, name: str, *arguments: Any) -> tuple[int, c_void_p, str]:
        """The status, the handle and the message of a function that makes one."""
        handle, message = c_void_p(), ctypes.create_string_buffer(200)
        status = getattr(self, name)(*arguments, byref(handle), message, 200)
        return status, handle, message.value.decode()

    def load(self, path: Path, configuration: str | None = None) -> c_void_p:
        text = None if configuration is None else configuration.encode()
        status, handle, message = self.make("stack_load", str(path).encode(), text)
        assert (status, message) == (OK, "")
        return handle

    def stream(self, stack: c_void_p, batch: int) -> c_void_p:
        status, handle, message = self.make("stream_create", stack, batch)
        assert (status, message) == (OK, "")
        return handle


SIZES = ("input_size", "hidden_size", "num_layers", "num_directions", "output_size", "state_parts")


@pytest.fixture(scope="module")
def library(lib_dir: Path) -> Library:
    return Library(lib_dir / "libfastlstm.so")


def at(array: np.ndarray[Any, Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


def flat(state: Any) -> Any:
    """A state of Python's as one of C's."""
    parts = state if isinstance(state, tuple) else (state,)
    return np.concatenate([part.ravel() for part in parts])


def test_version_and_names(library: Library) -> None:
    assert library.version().decode() == fastlstm.__version__
    assert library.isa().decode() == fastlstm.isa()
    names = [library.status_name(status).decode() for status in range(8)]
    assert names[0] == "ok"
    assert len(set(names)) == 8


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_bits_are_pythons(name: str, dtype: str, library: Library, tmp_path: Path) -> None:
    layer, (f, _) = LAYERS[name](dtype), FLOATS[dtype]
    layer.save(tmp_path / "layer")
    stack = library.load(tmp_path / "layer")
    streams = not (layer.bidirectional or layer.reverse)
    T, B, I = 9, 4, 3
    random = np.random.default_rng(1)
    x = random.normal(size=(T, B, I)).astype(dtype)
    lengths = np.array([9, 0, 3, 7])
    x_of = np.ascontiguousarray(x.swapaxes(0, 1)) if layer.batch_first else x
    wanted, state = layer(x_of, lengths=lengths)
    wanted, state = layer(x_of, state, lengths=lengths)

    O = library.stack_output_size(stack)
    assert wanted.shape[2] == O
    assert [getattr(library, f"stack_{size}")(stack) for size in SIZES[:4]] == [
        *(layer.input_size, layer.hidden_size, layer.num_layers, 1 + layer.bidirectional)
    ]
    assert library.stack_dtype(stack) == list(FLOATS).index(dtype) + 1
    output = np.full(wanted.shape, np.nan, dtype)
    states = np.zeros(library.stack_state_size(stack, B), dtype)
    run_stack = getattr(library, f"stack_run_{f}")
    for _ in range(2):  # the second time from the first one's state, in place
        status = run_stack(
            *(stack, T, B, int(layer.batch_first), at(lengths)),
            *(at(x_of), at(states), at(output), at(states)),
        )
        assert status == OK
    np.testing.assert_array_equal(output, wanted)
    np.testing.assert_array_equal(states, flat(state))

    status, handle, message = library.make("stream_create", stack, B)
    library.stack_free(stack)  # the stream goes on
    if not streams:
        assert (status, handle.value) == (INVALID_ARGUMENT, None)
        assert "from the end" in message
        return
    wanted, state = layer(x_of)
    wanted = wanted.swapaxes(0, 1) if layer.batch_first else wanted
    output = np.full((T, B, O), np.nan, dtype)
    steps = 4
    for t in range(steps):
        step = getattr(library, f"stream_step_{f}")
        assert step(handle, at(x[t]), at(output[t])) == OK
    saved, zeros = np.empty_like(states), np.zeros_like(states)
    assert getattr(library, f"stream_get_state_{f}")(handle, at(saved)) == OK
    assert library.stream_reset(handle) == OK
    assert getattr(library, f"stream_get_state_{f}")(handle, at(zeros)) == OK
    assert not zeros.any()
    assert getattr(library, f"stream_set_state_{f}")(handle, at(saved)) == OK
    process = getattr(library, f"stream_process_{f}")
    assert process(handle, T - steps, at(x[steps:]), at(output[steps:])) == OK
    assert getattr(library, f"stream_get_state_{f}")(handle, at(saved)) == OK
    np.testing.assert_array_equal(output, wanted)
    np.testing.assert_array_equal(saved, flat(state))
    library.stream_free(handle)


def test_two_outputs_side_by_side(library: Library, tmp_path: Path) -> None:
    layer = fastlstm.LSTM(3, 5, bidirectional=True, merge=None, seed=0)
    layer.save(tmp_path / "layer")
    stack = library.load(tmp_path / "layer")
    x, output = np.ones((4, 2, 3), np.float32), np.empty((4, 2, 10), np.float32)
    assert library.stack_run_f32(stack, 4, 2, 0, None, at(x), None, at(output), None) == OK
    np.testing.assert_array_equal(output, np.concatenate([*layer(x)[0]], axis=2))
    library.stack_free(stack)


@pytest.mark.parametrize(("T", "B"), [(0, 2), (3, 0), (0, 0)])
def test_nothing_to_compute(T: int, B: int, library: Library, tmp_path: Path) -> None:
    fastlstm.LSTM(3, 5, seed=0).save(tmp_path / "layer")
    stack = library.load(tmp_path / "layer")
    state = np.arange(library.stack_state_size(stack, B), dtype=np.float32)
    final = np.full_like(state, np.nan)
    assert library.stack_run_f32(stack, T, B, 0, None, None, at(state), None, at(final)) == OK
    np.testing.assert_array_equal(final, state)
    library.stack_free(stack)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_stack_of_arrays(dtype: str, library: Library) -> None:
    layer = fastlstm.GRU(3, 6, 2, dtype=dtype, seed=0)
    options = f'"input_size": 3, "hidden_size": 6, "num_layers": 2, "dtype": "{dtype}"'
    configuration = f'{{"layer": "GRU", "options": {{{options}}}}}'.encode()
    params = dict(layer.params)
    tensors = (Tensor * len(params))(
        *(
            Tensor(name.encode(), at(a), a.shape[0], a.shape[1] if a.ndim == 2 else 0)
            for name, a in params.items()
        )
    )
    status, stack, message = library.make("stack_create", configuration, tensors, len(tensors))
    assert (status, message) == (OK, "")
    x, output = np.ones((5, 1, 3), dtype), np.empty((5, 1, 6), dtype)
    run_stack = getattr(library, f"stack_run_{FLOATS[dtype][0]}")
    assert run_stack(stack, 5, 1, 0, None, at(x), None, at(output), None) == OK
    np.testing.assert_array_equal(output, layer(x)[0])
    library.stack_free(stack)

    status, stack, message = library.make("stack_create", configuration, tensors, len(tensors) - 1)
    assert (status, stack.value) == (BAD_FILE, None)
    assert "no tensor 'bias_hh_l1'" in message
    tensors[0].rows, tensors[0].columns = tensors[0].columns, tensors[0].rows
    status, _, message = library.make("stack_create", configuration, tensors, len(tensors))
    assert status == BAD_FILE
    assert message == "weight_ih_l0: expected the shape [18, 3], got [3, 18]"


def test_tensors_of_pytorch(library: Library, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    layer = fastlstm.LSTM(3, 6, 2, bidirectional=True, proj_size=4, seed=0)
    tensors = {f"encoder.lstm.{name}": value for name, value in layer.params.items()}
    tensors["head.weight"] = np.ones((2, 8), np.float32)
    save_file(tensors, tmp_path / "model")
    stack = library.load(tmp_path / "model")
    x, output = np.ones((5, 1, 3), np.float32), np.empty((5, 1, 8), np.float32)
    assert library.stack_run_f32(stack, 5, 1, 0, None, at(x), None, at(output), None) == OK
    np.testing.assert_array_equal(output, layer(x)[0])
    library.stack_free(stack)

    rnn = fastlstm.RNN(3, 6, nonlinearity="relu", seed=0)
    save_file(dict(rnn.params), tmp_path / "rnn")
    status, _, message = library.make("stack_load", str(tmp_path / "rnn").encode(), None)
    assert status == UNSUPPORTED
    assert "tanh or relu" in message
    options = '{"input_size": 3, "hidden_size": 6, "nonlinearity": "relu"}'
    stack = library.load(tmp_path / "rnn", f'{{"layer": "RNN", "options": {options}}}')
    output = np.empty((5, 1, 6), np.float32)
    assert library.stack_run_f32(stack, 5, 1, 0, None, at(x), None, at(output), None) == OK
    np.testing.assert_array_equal(output, rnn(x)[0])
    library.stack_free(stack)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@pytest.mark.parametrize("rounds", [False, True])
def test_small_weights_have_pythons_bits(
    weights: str, rounds: bool, library: Library, tmp_path: Path
) -> None:
    layer = fastlstm.LSTM(3, 21, 2, proj_size=5, seed=0)
    layer = layer.quantize(weights, weights if rounds else "float32")
    layer.save(tmp_path / "layer")
    stack = library.load(tmp_path / "layer")
    x = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    output = np.empty((6, 4, 5), np.float32)
    assert library.stack_run_f32(stack, 6, 4, 0, None, at(x), None, at(output), None) == OK
    np.testing.assert_array_equal(output, layer(x)[0])
    library.stack_free(stack)


def test_halves_are_exact(library: Library, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    layer = fastlstm.GRU(3, 6, seed=0)
    halves = {name: value.astype(np.float16) for name, value in layer.params.items()}
    layer.load_state_dict(halves)
    save_file(halves, tmp_path / "halves")
    stack = library.load(tmp_path / "halves")
    x, output = np.ones((5, 1, 3), np.float32), np.empty((5, 1, 6), np.float32)
    assert library.stack_run_f32(stack, 5, 1, 0, None, at(x), None, at(output), None) == OK
    np.testing.assert_array_equal(output, layer(x)[0])
    library.stack_free(stack)


def test_files_that_are_refused(library: Library, tmp_path: Path) -> None:
    def load(path: Path) -> tuple[int, str]:
        status, stack, message = library.make("stack_load", str(path).encode(), None)
        assert (stack.value is None) == (status != OK)
        return status, message

    assert load(tmp_path / "none") == (
        NOT_READABLE,
        f"{tmp_path}/none: No such file or directory"[:199],
    )
    status, message = load(tmp_path)
    assert status == NOT_READABLE
    assert message.endswith(": Is a directory")
    (tmp_path / "text").write_text("A text of some length.")
    assert load(tmp_path / "text")[0] == BAD_FILE
    layer = fastlstm.nn.Module(lstm=fastlstm.LSTM(2, 3), head=fastlstm.nn.Linear(3, 1))
    layer.save(tmp_path / "module")
    status, message = load(tmp_path / "module")
    assert status == UNSUPPORTED
    assert "module" in message


def test_wrong_arguments(library: Library, tmp_path: Path) -> None:
    fastlstm.LSTM(2, 3, seed=0).save(tmp_path / "layer")
    stack = library.load(tmp_path / "layer")
    x, output = np.ones((2, 2, 2), np.float32), np.ones((2, 2, 3), np.float32)
    run_f32 = library.stack_run_f32
    assert run_f32(None, 2, 2, 0, None, at(x), None, at(output), None) == INVALID_ARGUMENT
    assert run_f32(stack, 2, 2, 0, None, None, None, at(output), None) == INVALID_ARGUMENT
    assert run_f32(stack, -1, 2, 0, None, at(x), None, at(output), None) == INVALID_ARGUMENT
    assert run_f32(stack, 2**62, 2, 0, None, at(x), None, at(output), None) == INVALID_ARGUMENT
    for lengths in (np.array([3, 0]), np.array([0, -1])):
        arguments = (stack, 2, 2, 0, at(lengths), at(x), None, at(output), None)
        assert run_f32(*arguments) == INVALID_ARGUMENT
    assert library.stack_run_f64(stack, 2, 2, 0, None, *4 * [None]) == WRONG_DTYPE
    assert library.make("stream_create", None, 1)[0] == INVALID_ARGUMENT
    assert library.make("stream_create", stack, 0)[0] == INVALID_ARGUMENT
    assert library.make("stream_create", stack, 2**61)[0] == INVALID_ARGUMENT
    assert library.make("stack_load", None, None)[0] == INVALID_ARGUMENT
    assert library.set_num_threads(0) == INVALID_ARGUMENT
    assert library.stream_step_f32(None, at(x), at(output)) == INVALID_ARGUMENT
    stream = library.stream(stack, 2)
    assert library.stream_step_f32(stream, None, at(output)) == INVALID_ARGUMENT
    assert library.stream_step_f64(stream, at(x), at(output)) == WRONG_DTYPE
    assert library.stream_process_f32(stream, -1, at(x), at(output)) == INVALID_ARGUMENT
    assert library.stream_process_f32(stream, 0, None, None) == OK
    assert library.stream_get_state_f64(stream, at(output)) == WRONG_DTYPE
    assert library.stream_set_state_f32(stream, None) == INVALID_ARGUMENT
    assert library.stack_state_part_name(stack, 1) == b"c"
    assert library.stack_state_part_name(stack, 2) is None
    assert library.stack_state_part_width(stack, -1) == 0
    library.stream_free(stream)
    library.stream_free(None)
    library.stack_free(stack)
    library.stack_free(None)


def test_a_wrong_instruction_set_is_named(lib_dir: Path, tmp_path: Path) -> None:
    fastlstm.LSTM(2, 3, seed=0).save(tmp_path / "layer")
    code = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
message, stack = ctypes.create_string_buffer(200), ctypes.c_void_p()
status = library.fastlstm_stack_load(
    sys.argv[2].encode(), None, ctypes.byref(stack), message, ctypes.c_size_t(200)
)
print(status, message.value.decode())
"""
    environment = {**os.environ, "FASTLSTM_ISA": "mmx"}
    printed = run(
        *(sys.executable, "-c", code, lib_dir / "libfastlstm.so", tmp_path / "layer"),
        env=environment,
    )
    assert printed.startswith(f"{INVALID_ARGUMENT} FASTLSTM_ISA: expected one of")


def test_threads_share_a_stack(library: Library, tmp_path: Path) -> None:
    layer = fastlstm.LSTM(8, 32, seed=0)
    layer.save(tmp_path / "layer")
    stack = library.load(tmp_path / "layer")
    x = np.random.default_rng(0).normal(size=(50, 4, 8)).astype(np.float32)
    wanted, _ = layer(x)
    outputs = [np.empty_like(wanted) for _ in range(4)]

    def work(output: Any) -> None:
        for _ in range(20):
            library.stack_run_f32(stack, 50, 4, 0, None, at(x), None, at(output), None)

    threads = [threading.Thread(target=work, args=(output,)) for output in outputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for output in outputs:
        np.testing.assert_array_equal(output, wanted)
    library.stack_free(stack)


# --- real time and damaged files ------------------------------------------------------------------


def program(name: str) -> Path:
    """A program of tests/cpp in the build's folder."""
    path = ROOT / str(BUILD) / "tests/cpp" / name
    assert path.exists(), f"{BUILD} has no tests: configure it with -DFASTLSTM_TESTS=ON"
    return path


def test_streams_make_no_system_calls(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    command = ["strace", "-f", "-o", tmp_path / "trace", program("test_realtime")]
    done = subprocess.run(command, capture_output=True, text=True)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stdout
    # Between every other two marks there is nothing.
    text = (tmp_path / "trace").read_text()
    between = re.split(r"^.*getppid\(\).*\n", text, flags=re.MULTILINE)
    assert len(between) > 100
    assert [calls for calls in between[1::2] if calls] == []
    assert [calls for calls in between[2::2] if calls] != []


def clang() -> str:
    """Clang 20 or newer, whose sanitizers are installed."""
    for name in ("clang++", *(f"clang++-{n}" for n in range(30, 19, -1))):
        path = shutil.which(name)
        if path is None:
            continue
        code = "int main() {}"
        command = [path, "-fsanitize=realtime", "-xc++", "-", "-o", os.devnull]
        if subprocess.run(command, input=code, text=True, capture_output=True).returncode == 0:
            return path
    pytest.skip("no Clang that has RealtimeSanitizer (20 or newer)")


def test_streams_under_realtime_sanitizer(prefix: Path, lib_dir: Path, tmp_path: Path) -> None:
    cpp = ROOT / "tests/cpp"
    run(
        *(clang(), "-std=c++17", "-O1", "-fsanitize=realtime", f"-I{prefix}/include", f"-I{cpp}"),
        *(cpp / "test_realtime.cpp", cpp / "check_main.cpp", lib_dir / "libfastlstm.a"),
        *("-pthread", "-o", tmp_path / "test_realtime"),
    )
    printed = run(tmp_path / "test_realtime")
    assert "3 passed" in printed


def test_libfuzzer_finds_no_fault(lib_dir: Path, tmp_path: Path) -> None:
    csrc = ROOT / "csrc"
    run(
        *(clang(), "-std=c++17", "-g1", "-O1", "-fsanitize=fuzzer,address,undefined"),
        *("-fno-sanitize-recover=all", '-DFASTLSTM_VERSION="0"'),
        *(f"-I{csrc}", f"-I{csrc}/include", f"-I{csrc}/c/include"),
        *(*sorted((csrc / "files").glob("*.cpp")), csrc / "c/fastlstm.cpp"),
        *(ROOT / "tests/cpp/fuzz_file.cpp", lib_dir / "libfastlstm.a"),
        *("-pthread", "-o", tmp_path / "fuzz_file"),
    )
    (tmp_path / "corpus").mkdir()
    for name, make in LAYERS.items():
        make("float32").save(tmp_path / "corpus" / name)
    for weights in ("bfloat16", "int8"):
        small = fastlstm.LSTM(3, 20, proj_size=7, seed=0).quantize(weights, weights)
        small.save(tmp_path / "corpus" / weights)
    limits = ["-rss_limit_mb=2000", "-malloc_limit_mb=500"]
    run(tmp_path / "fuzz_file", "-runs=5000", "-seed=1", *limits, tmp_path / "corpus")


# --- the examples ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of examples/cpp are."""
    folder = tmp_path_factory.mktemp("examples")
    run("cmake", "-S", ROOT / "examples/cpp", "-B", folder, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", folder)
    return folder


@pytest.mark.parametrize("channels", [1, 2])
def test_effect(channels: int, examples: Path, tmp_path: Path) -> None:
    layer = fastlstm.LSTM(1, 8, seed=0)
    layer.save(tmp_path / "model")
    random = np.random.default_rng(0)
    head = random.normal(size=9).astype(np.float32)
    np.savetxt(tmp_path / "head", head)
    samples = random.integers(-(2**15), 2**15, (1000, channels)).astype("<i2")
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setparams((channels, 2, 48000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    printed = run(
        examples / "effect", *(tmp_path / name for name in ("model", "head", "in.wav", "out.wav"))
    )
    assert re.match(r"16 blocks of 64 samples: median .*, deadline 1333.3 us", printed)

    x = (samples / 32768).astype(np.float32)
    h, _ = layer(x[:, :, None])
    wanted = x + h @ head[:8] + head[8]
    data = (tmp_path / "out.wav").read_bytes()
    assert data[:4] == b"RIFF"
    assert data[36:40] == b"data"
    output = np.frombuffer(data[44:], "<f4").reshape(-1, channels)
    np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-5)

    again = run(
        *(examples / "effect", tmp_path / "model", tmp_path / "head"),
        *(tmp_path / "out.wav", tmp_path / "twice.wav", "1000"),
    )
    assert again.startswith("1 blocks of 1000 samples")


def test_effect_refuses(examples: Path, tmp_path: Path) -> None:
    fastlstm.LSTM(2, 8, seed=0).save(tmp_path / "model")
    (tmp_path / "in.wav").write_bytes(b"RIFF1234WAVEfmt ")
    done = subprocess.run(
        [examples / "effect", tmp_path / "model", tmp_path / "head", tmp_path / "in.wav", "out"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "in.wav: it has no format" in done.stderr


@pytest.mark.parametrize("dtype", FLOATS)
def test_predict(dtype: str, examples: Path, tmp_path: Path) -> None:
    layer = fastlstm.GRU(3, 5, 2, dtype=dtype, seed=0)
    layer.save(tmp_path / "model")
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(dtype)
    lines = [",".join(repr(float(v)) for v in row) for row in x]
    printed = run(examples / "predict", tmp_path / "model", input="\n".join([*lines, "", *lines]))
    first, second = (
        [[float(v) for v in line.split(",")] for line in part.split()]
        for part in printed.split("\n\n")
    )
    np.testing.assert_array_equal(np.array(first, dtype), layer(x)[0])
    assert first == second


def test_predict_refuses(examples: Path, tmp_path: Path) -> None:
    fastlstm.GRU(3, 5, seed=0).save(tmp_path / "model")

    def error(model: Path, text: str) -> str:
        command = [examples / "predict", model]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == 1
        return done.stderr

    assert "line 2: expected 3 numbers" in error(tmp_path / "model", "1,2,3\n1,2\n")
    assert "line 1: expected 3 numbers" in error(tmp_path / "model", "1,2,3,4\n")
    assert "none: No such file" in error(tmp_path / "none", "")
