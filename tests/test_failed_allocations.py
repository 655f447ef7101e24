"""Every allocation of a call fails in turn, small ones too: that is a MemoryError, no end."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# glibc's functions have other names, too. Only the thread that asks for it is without memory.
# NumPy's indices and functions may end the process where they have none, or fail without saying
# why: where they are much of what is called, they are spared, and what Python allocates for them.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <stddef.h>
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
static __thread long left = -1;
static __thread int failed = 0, only_ours = 0;
void fail_after(long n, int ours) { only_ours = ours; failed = 0; left = n; }
int has_failed(void) { left = -1; return failed; }
static int is_ours(void* caller) {
  Dl_info at;
  if (!dladdr(caller, &at) || !at.dli_fname) return 0;
  return strstr(at.dli_fname, "/_core.") || strstr(at.dli_fname, "libstdc++");
}
static int fails(void* caller) {
  if (left < 0 || (only_ours && !is_ours(caller)) || left-- > 0) return 0;
  errno = ENOMEM;
  return failed = 1;
}
#define FAILS fails(__builtin_return_address(0))
void* malloc(size_t n) { return FAILS ? NULL : __libc_malloc(n); }
void* calloc(size_t n, size_t size) { return FAILS ? NULL : __libc_calloc(n, size); }
void* realloc(void* p, size_t n) { return FAILS ? NULL : __libc_realloc(p, n); }
void* aligned_alloc(size_t to, size_t n) { return FAILS ? NULL : __libc_memalign(to, n); }
"""

PROGRAM = """
import ctypes, sys
import fastlstm, numpy as np
from fastlstm import nn
shim = ctypes.PyDLL(sys.argv[1])  # it keeps the interpreter's lock
lstm = fastlstm.LSTM(5, 9, 2, seed=0)
x, values = np.ones((4, 3, 5), np.float32), dict(lstm.params)
stream = lstm.stream(3)
output, state, tape = lstm.forward(x)
grads = tape.backward(output).params
optimizer = fastlstm.optim.Adam()
optimizer.step(values, grads)
want = output.copy()
lengths, labels = [4, 2, 3], [[1, 2], [2, 0], [1, 3]]
linear, crf, attention = nn.Linear(9, 4, seed=0), nn.CRF(4, seed=0), nn.Attention()
model = nn.Module(words=nn.Embedding(6, 9, seed=0), out=linear)
tokens, tags, scores = np.arange(12).reshape(4, 3) % 6, np.ones((4, 3), int), output[..., :4].copy()
def blocks():
    y, of_linear = linear.forward(output)
    of_linear.backward(y)
    y, of_pool = nn.Pool().forward(output, lengths)
    of_pool.backward(y)
    y, of_attention = attention.forward(y, output, lengths)
    of_attention.backward(y)
    nn.Dropout(0.5, seed=0).forward(y)[1].backward(y)
def losses():
    nn.cross_entropy(scores, tags, lengths, label_smoothing=0.1)
    nn.linear_cross_entropy(linear, output, tags, lengths)
    nn.quantile(scores, tags, [0.1, 0.2, 0.3, 0.4], lengths)
def of_crf():
    crf.loss(scores, tags, lengths)
    crf.decode(scores, lengths)
    crf.marginals(scores, lengths)
def of_ctc():
    nn.ctc(scores, lengths, labels, [2, 1, 2])
    nn.ctc_decode(scores, lengths, beam_size=3)
def of_module():
    x, words = model.words.forward(tokens)
    y, out = model.out.forward(x)
    of_out = out.backward(y)
    model.step(optimizer, {"words": words.backward(of_out.x), "out": of_out}, clip=1.0)
work = {
    "call": lambda: lstm(x),
    "forward": lambda: lstm.forward(x),
    "backward": lambda: tape.backward(output),
    "trace": lambda: lstm.trace(x),
    "training_memory": lambda: lstm.training_memory(4, 3),
    "make": lambda: fastlstm.LSTM(5, 9, 2, seed=0),
    "update": lambda: lstm.update(values),
    "stream": lambda: lstm.stream(3),
    "step": lambda: stream.step(x[0]),
    "run": lambda: stream.run(x),
    "state": lambda: stream.state,
    "set_state": lambda: setattr(stream, "state", state),
    "reset": lambda: stream.reset(),
    "optimiser": lambda: optimizer.step(values, grads),
    "blocks": blocks,
    "losses": losses,
    "crf": of_crf,
    "ctc": of_ctc,
    "module": of_module,
    "show_config": lambda: fastlstm.show_config(all=True),
}[sys.argv[2]]
work()
n = 0
while True:
    said = None
    try:
        shim.fail_after(n, sys.argv[2] in ("blocks", "losses", "crf", "ctc", "module"))
        work()
    except Exception as error:
        said = error
    try:
        failed = shim.has_failed()
    except MemoryError:  # ctypes needed it, when the work was done
        break
    # Python says of a lock that it has no memory for: RuntimeError.
    assert said is None or isinstance(said, MemoryError) or "allocate lock" in str(said), repr(said)
    if not failed:
        break
    n += 1
assert (lstm(x)[0] == want).all()
assert n > 0 or sys.argv[2] in ("step", "run")  # which allocate nothing but results, NumPy's
print("done")
"""

# Those of the program above.
WORK = [
    *(
        "call",
        "forward",
        "backward",
        "trace",
        "training_memory",
        "make",
        "update",
        "stream",
        "step",
    ),
    *("run", "state", "set_state", "reset", "optimiser", "show_config"),
    *("blocks", "losses", "crf", "ctc", "module"),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or platform.libc_ver()[0] != "glibc" or "LD_PRELOAD" in os.environ:
        pytest.skip("needs a C compiler, and to replace glibc's functions")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "shim.c")], check=True
    )
    return library


@pytest.mark.slow
@pytest.mark.parametrize("work", WORK)
def test_a_failed_allocation_is_a_memory_error(work: str, shim: Path) -> None:
    run(work, shim)


@pytest.mark.parametrize("work", ["call", "forward", "backward", "training_memory", "optimiser"])
def test_so_is_one_of_pythons_own(work: str, shim: Path) -> None:
    """Python has pools for small objects, strings among them; here it asks for each."""
    run(work, shim, PYTHONMALLOC="malloc")


def run(work: str, shim: Path, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(shim), work],
        env={**os.environ, "LD_PRELOAD": str(shim), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
