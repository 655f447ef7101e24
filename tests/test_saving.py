"""What a save does to the file that it replaces, its folder and its disk, and what it survives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import fastlstm
import numpy as np
import pytest
import safetensors.numpy
from fastlstm import _core, _costs
from fastlstm.embeddings import Embeddings

LAYER = fastlstm.LSTM(3, 4, seed=0)


def _to_onnx(path: Path) -> None:
    fastlstm.to_onnx(LAYER, path)


def _costs_of_tune(path: Path) -> None:
    _costs.write(str(path), {name: value for name, value, _ in _core.tuning()})


SAVES: dict[str, Callable[[Path], None]] = {
    "layer": LAYER.save,
    "small layer": LAYER.quantize("int8").save,
    "costs": _costs_of_tune,
    "embeddings": Embeddings(["yes", "no"], np.eye(2, 3)).save,
    "onnx": _to_onnx,
}


@pytest.fixture(params=SAVES.values(), ids=SAVES.keys())
def save(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], None]:
    """Every way to write a file. A first time is over: nobody may read what root may import."""
    if request.param is _to_onnx:
        pytest.importorskip("onnx")
    request.param(tmp_path_factory.mktemp("first") / "f")
    return request.param


@pytest.fixture
def content(save: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("content") / "f"
    save(path)
    return path.read_bytes()


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """As a user that may not do everything."""
    if os.getuid() != 0:
        yield
        return
    os.setegid(54321)
    os.seteuid(54321)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user comes to, and may write to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


# --- what the new file has of the old -----------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666, 0o755, 0o2664, 0o4711])
def test_the_mode_stays(save: Callable[[Path], None], tmp_path: Path, mode: int) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(mode)
    if not os.access(path, os.W_OK):
        pytest.skip("only root may write to such a file")
    save(path)
    assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(mode)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_the_umask(
    save: Callable[[Path], None], tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        save(tmp_path / "f")
    finally:
        os.umask(before)
    assert oct(stat.S_IMODE((tmp_path / "f").stat().st_mode)) == oct(0o666 & ~umask)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_owner_and_the_group_stay(save: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    os.chown(path, 1234, 5678)
    path.chmod(0o6750)  # which a change of owner would take away
    save(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)
    assert stat.S_IMODE(path.stat().st_mode) == 0o6750


@pytest.mark.skipif(os.getuid() != 0, reason="needs the files of two users")
def test_another_group_may_do_no_more_than_everybody(open_path: Path) -> None:
    """Where the system does not let the group stay, what it may do stays with it."""
    path = open_path / "f"
    path.write_text("old")
    os.chown(path, 1234, 5678)
    path.chmod(0o666)
    with as_nobody():
        LAYER.save(path)
    assert path.stat().st_uid == 54321
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    os.chown(path, 54321, 5678)
    path.chmod(0o664)
    with as_nobody():
        LAYER.save(path)
    assert path.stat().st_gid != 5678
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_attributes_stay(save: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    try:
        os.setxattr(path, "user.origin", b"here")
    except OSError:
        pytest.skip("the file system has no attributes")
    save(path)
    assert os.getxattr(path, "user.origin") == b"here"


def access_list(reader: int) -> bytes:
    """The access control list of a file that its owner and one more user may read."""
    entries = [(1, 6, -1), (2, 4, reader), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def test_access_control_lists_stay(save: Callable[[Path], None], tmp_path: Path) -> None:
    """The folder's, which new files have, is not added."""
    name = "system.posix_acl_access"
    for path in (tmp_path / "with", tmp_path / "without"):
        path.write_text("old")
        path.chmod(0o640)
    try:
        os.setxattr(tmp_path / "with", name, access_list(1234))
        os.setxattr(tmp_path, "system.posix_acl_default", access_list(5678))
    except OSError:
        pytest.skip("the file system has no access control lists")
    save(tmp_path / "with")
    assert os.getxattr(tmp_path / "with", name) == access_list(1234)
    save(tmp_path / "without")
    assert name not in os.listxattr(tmp_path / "without")
    assert stat.S_IMODE((tmp_path / "without").stat().st_mode) == 0o640
    save(tmp_path / "new")
    assert os.getxattr(tmp_path / "new", name) == access_list(5678)


# --- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [1, 2, 40])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_links_lead_to_what_is_replaced(
    tmp_path: Path, links: int, absolute: bool, there: bool
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if there:
        (folder / "f").write_text("old")
    target = folder / "f" if absolute else Path("folder/f")
    for n in range(links):
        link = tmp_path / f"link {n}"
        link.symlink_to(target)
        target = link if absolute else Path(link.name)
    LAYER.save(link)
    assert all((tmp_path / f"link {n}").is_symlink() for n in range(links))
    assert os.listdir(folder) == ["f"]
    assert not (folder / "f").is_symlink()
    fastlstm.load(folder / "f")


def test_links_of_folders(tmp_path: Path) -> None:
    """A link is relative to the folder it is in, not to the one that led there."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "short").symlink_to("a/b")
    (tmp_path / "a/b/link").symlink_to("../f")
    LAYER.save(tmp_path / "short/link")
    fastlstm.load(tmp_path / "a/f")
    assert (tmp_path / "a/b/link").is_symlink()


@pytest.mark.parametrize("length", [1, 2, 41])
def test_links_without_an_end(save: Callable[[Path], None], tmp_path: Path, length: int) -> None:
    for n in range(length):
        (tmp_path / str(n)).symlink_to(str((n + 1) % length))
    with pytest.raises(OSError, match="levels of symbolic links") as raised:
        save(tmp_path / "0")
    assert raised.value.errno == errno.ELOOP
    assert raised.value.filename == str(tmp_path / "0")
    assert len(os.listdir(tmp_path)) == length


def test_other_names_of_a_file_keep_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    os.link(tmp_path / "f", tmp_path / "other")
    LAYER.save(tmp_path / "f")
    fastlstm.load(tmp_path / "f")
    assert (tmp_path / "other").read_text() == "old"


# --- what cannot be replaced --------------------------------------------------------------------


def test_pipes_and_deleted_files_are_written_to(
    save: Callable[[Path], None], content: bytes, tmp_path: Path
) -> None:
    with open(tmp_path / "f", "wb+") as file:
        os.unlink(tmp_path / "f")
        save(Path(f"/proc/self/fd/{file.fileno()}"))
        assert file.read() == content
    read, write = os.pipe()
    os.set_blocking(write, False)
    save(Path(f"/proc/self/fd/{write}"))
    assert os.read(read, 1 << 16) == content
    os.close(read)
    os.close(write)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes devices, and may replace them")
def test_a_device_stays_one(save: Callable[[Path], None], tmp_path: Path) -> None:
    """A twin of /dev/null, which without it a machine would do badly."""
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.read_bytes()
    except PermissionError:
        pytest.skip("no devices here")
    save(path)
    assert stat.S_ISCHR(path.lstat().st_mode)
    assert os.listdir(tmp_path) == ["null"]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", FileNotFoundError),
        (".", IsADirectoryError),
        ("folder", IsADirectoryError),
        ("folder/", IsADirectoryError),
        ("new/", IsADirectoryError),
        ("file/", NotADirectoryError),
        ("file/new", NotADirectoryError),
        ("none/../new", FileNotFoundError),
        ("n" * 256, OSError),
        ("to folder", IsADirectoryError),
        ("to nothing", FileNotFoundError),
        ("a\0b", ValueError),
    ],
)
def test_paths_of_no_file(
    path: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    Path("file").write_text("old")
    os.symlink("folder", "to folder")
    os.symlink("none/new", "to nothing")
    before = sorted(os.listdir())
    with pytest.raises(error) as raised:
        LAYER.save(path)
    if isinstance(raised.value, OSError):
        assert raised.value.filename == path
    assert sorted(os.listdir()) == before
    assert os.listdir("folder") == []


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "\udcff", "a\nb", " ", "-", ".fastlstm-"])
def test_odd_names(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        LAYER.save(tmp_path / name)
        assert os.listdir(tmp_path) == [name]
    fastlstm.load(tmp_path / name)


def test_a_file_that_the_user_may_not_write_to(
    save: Callable[[Path], None], open_path: Path
) -> None:
    path = open_path / "f"
    path.write_text("old")
    path.chmod(0o444)
    with as_nobody(), pytest.raises(PermissionError) as raised:
        save(path)
    assert raised.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(open_path) == ["f"]


def test_a_folder_that_takes_no_new_file(save: Callable[[Path], None], open_path: Path) -> None:
    folder = open_path / "folder"
    folder.mkdir()
    path = folder / "f"
    path.write_text("old")
    path.chmod(0o666)
    folder.chmod(0o555)
    with as_nobody(), pytest.raises(PermissionError, match="its folder takes no new file") as error:
        save(path)
    assert error.value.filename == str(path)
    with as_nobody(), pytest.raises(PermissionError) as error:
        save(folder / "new")
    assert error.value.filename == str(folder / "new")
    folder.chmod(0o755)
    assert path.read_text() == "old"
    assert os.listdir(folder) == ["f"]


def test_a_folder_that_may_be_written_to_but_not_listed(open_path: Path) -> None:
    folder = open_path / "folder"
    folder.mkdir()
    folder.chmod(0o333)
    with as_nobody():
        LAYER.save(folder / "f")
        LAYER.save(folder / "f")
    folder.chmod(0o755)
    assert os.listdir(folder) == ["f"]


# --- full disks, ends of power, kills -----------------------------------------------------------


@pytest.mark.parametrize("old", [None, "old"])
def test_a_limit_of_a_files_size(
    save: Callable[[Path], None], tmp_path: Path, old: str | None
) -> None:
    path = tmp_path / "f"
    if old is not None:
        path.write_text(old)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(path)
    assert os.listdir(tmp_path) == ([] if old is None else ["f"])
    assert old is None or path.read_text() == old


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
def test_errors_leave_the_old_file_and_no_other(
    call: str, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise error(errno.EIO, "broken")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(error):
        LAYER.save(path)
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EBUSY, "mounted by itself"), (errno.EPERM, "but the owner")]
)
def test_files_that_no_other_can_replace(
    number: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is mounted alone, and another user's in a sticky folder."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "f"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=reason) as raised:
        LAYER.save(path)
    assert (raised.value.errno, raised.value.filename) == (number, str(path))
    assert os.listdir(tmp_path) == ["f"]


def test_the_order_of_system_calls(tmp_path: Path) -> None:
    """The disk has the new file before it takes the old one's place, and then that it did."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    (tmp_path / "f").write_text("old")
    code = "import sys, fastlstm; fastlstm.LSTM(3, 4).save(sys.argv[1])"
    traced = ["strace", "-y", "-s0", "-etrace=openat,write,fchmod,fsync,/^rename", "-o"]
    run = subprocess.run(
        [*traced, tmp_path / "trace", sys.executable, "-c", code, tmp_path / "f"],
        capture_output=True,
        text=True,
    )
    if "ptrace" in run.stderr:
        pytest.skip("strace may not trace here")
    assert run.returncode == 0, run.stderr
    folder = re.escape(str(tmp_path))
    temporary = rf"{folder}/\.fastlstm-[0-9a-f]{{8}}-[0-9a-f]{{16}}"
    steps = {
        "made": rf'openat\(\S+, "{temporary}", O_WRONLY\|O_CREAT\|O_EXCL',
        "written": rf"write\(\d+<{temporary}>",
        "mode": rf"fchmod\(\d+<{temporary}>",
        "on disk": rf"fsync\(\d+<{temporary}>\) += 0",
        "renamed": rf'rename\w*\(.*"{temporary}", .*"{folder}/f".*\) += 0',
        "folder on disk": rf"fsync\(\d+<{folder}>\) += 0",
    }
    seen = [
        name
        for line in (tmp_path / "trace").read_text().splitlines()
        for name, pattern in steps.items()
        if re.search(pattern, line)
    ]
    assert list(dict.fromkeys(seen)) == list(steps)
    assert "written" not in seen[seen.index("on disk") :]


KILLED = """
import os, signal, sys, fastlstm
os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
fastlstm.LSTM(3, 4).save(sys.argv[1])
"""


def run_code(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_killed_writers_leave_is_removed(call: str, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with run_code(KILLED.format(call=call), path) as child:
        assert child.wait() == -signal.SIGKILL
    assert path.read_text() == "old"
    (left,) = set(os.listdir(tmp_path)) - {"f"}
    # Other files are let alone, of other targets, too.
    (tmp_path / ".fastlstm-note").write_text("a user's")
    LAYER.save(tmp_path / "other")
    assert left in os.listdir(tmp_path)
    LAYER.save(path)
    assert sorted(os.listdir(tmp_path)) == [".fastlstm-note", "f", "other"]
    fastlstm.load(path)


LIVING = """
import os, sys, fastlstm
real = os.fsync
def wait(descriptor):
    os.fsync = real
    print("written", flush=True)
    sys.stdin.read()
    real(descriptor)
os.fsync = wait
fastlstm.LSTM(3, 4, seed=1).save(sys.argv[1])
"""


def test_what_living_writers_have_is_let_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with run_code(LIVING, path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        LAYER.save(path)
        assert len(os.listdir(tmp_path)) == 2
        child.communicate("")
        assert child.returncode == 0
    assert os.listdir(tmp_path) == ["f"]
    expected = fastlstm.LSTM(3, 4, seed=1).params["weight_ih_l0"]
    np.testing.assert_array_equal(fastlstm.load(path).params["weight_ih_l0"], expected)


@pytest.mark.parametrize("linked", [False, True])
def test_threads_that_save_to_one_path(linked: bool, tmp_path: Path) -> None:
    """Each finds a whole file, although the others replace it between any two of its looks."""
    path = tmp_path / "f"
    if linked:
        path = tmp_path.parent / f"{tmp_path.name}-link"
        path.symlink_to(tmp_path / "f")
    layers = [fastlstm.LSTM(3, 4, seed=seed) for seed in range(4)]
    errors: list[BaseException] = []

    def work(layer: fastlstm.LSTM) -> None:
        try:
            for _ in range(50):
                layer.save(path)
                fastlstm.load(path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(layer,)) for layer in layers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("already_gone", [False, True])
def test_another_writer_between_making_a_file_and_locking_it(
    already_gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the file for one that was left behind; then another is made."""
    locks = []

    def flock(descriptor: int, kind: int) -> None:
        locks.append(kind)
        if len(locks) == 1:
            (temporary,) = tmp_path.iterdir()
            if already_gone:
                temporary.unlink()
            else:
                raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", flock)
    LAYER.save(tmp_path / "f")
    assert len(locks) == 2
    assert os.listdir(tmp_path) == ["f"]
    fastlstm.load(tmp_path / "f")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    with run_code(KILLED.format(call="fsync"), path) as child:
        child.wait()
    left = os.listdir(tmp_path)

    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    LAYER.save(path)
    assert sorted(os.listdir(tmp_path)) == sorted([*left, "f"])  # who knows whose it is


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_systems_that_have_less(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Linux alone can do is left out: all names that others lack are missing."""
    lacking = ["listxattr", "getxattr", "setxattr", "removexattr"]
    if system == "win32":
        lacking += ["fchown", "fchmod", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK"]
        monkeypatch.setattr(os, "supports_effective_ids", set())
        monkeypatch.delattr(fcntl, "flock")
    for name in lacking:
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(sys, "platform", system)
    path = tmp_path / "f"
    for layer in (fastlstm.GRU(2, 3), LAYER):
        layer.save(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["f"]
    assert fastlstm.load(path).params.keys() == LAYER.params.keys()


# --- the content --------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN])
def test_files_of_layers_are_those_of_safetensors(cls: type, tmp_path: Path) -> None:
    layer = cls(5, 3, 2, bidirectional=True, dtype="float64", seed=0)
    layer.save(tmp_path / "f")
    with safetensors.safe_open(tmp_path / "f", framework="numpy") as file:
        metadata = file.metadata()
    expected = safetensors.numpy.save(layer.state_dict(), metadata=metadata)
    assert (tmp_path / "f").read_bytes() == expected


@pytest.mark.parametrize("kind", ["layer", "embeddings"])
def test_a_save_takes_no_memory(kind: str, tmp_path: Path) -> None:
    values = np.ones((4 * 500, 500), np.float32)
    if kind == "layer":
        thing = fastlstm.LSTM(500, 500)
    else:
        thing = Embeddings(map(str, range(len(values))), values)
    thing.save(tmp_path / "f")
    tracemalloc.start()
    thing.save(tmp_path / "f")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < values.nbytes / 4
