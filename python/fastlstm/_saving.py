"""Files that are written so that they are complete or as they were before."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Mapping
from io import FileIO
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_path

if sys.platform != "win32":
    import fcntl

_AT_ONCE = 8 << 20  # bytes
_MOST_LINKS = 40  # as many as Linux follows
_ACCESS_LIST = "system.posix_acl_access"
# Attributes of a file that say who may use it and what its owner noted. Others describe its content
# ("security.ima") and would be wrong of the next.
_KEPT_ATTRIBUTES = (_ACCESS_LIST, "user.", "security.selinux")
# Why no other file can take a file's place, which a save needs.
_NOT_REPLACED = {
    errno.EBUSY: "it is mounted by itself, so that a save cannot replace it; mount its folder",
    errno.EPERM: "its folder lets nobody but the owner replace it, which a save needs",
}
# NumPy has no bfloat16, and nothing that is saved is uint16.
_KINDS = {"f4": "F32", "f8": "F64", "i8": "I64", "u1": "U8", "i1": "I8", "u2": "BF16"}


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, str],
    *,
    alignment: int = 8,
) -> None:
    """Write a safetensors file, as :func:`write_whole` does, without a copy of the tensors.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        In the order in which their values stand in the file.
    alignment : int
        Of the first tensor's values.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {
            "dtype": _KINDS[array.dtype.str[1:]],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % alignment)
    values = (np.ascontiguousarray(array).data for array in tensors.values())
    write_whole(path, len(text).to_bytes(8, "little"), text, *values)


def write_whole(path: str | os.PathLike[str], *parts: bytes | memoryview) -> None:
    """Write parts to a file, which is complete or as it was before, whatever happens.

    They go to a temporary file in the same folder, which takes the old one's place once the disk
    has it. Links lead to the file that is replaced; devices and pipes are written to.

    Raises
    ------
    TypeError
        The path is none.
    OSError
        The file cannot be written, or the user may not write to it.
    """
    path = as_path("path", path)
    try:
        target, old, has_place = _look_at(path)
        if has_place:
            _replace(target, old, parts)
        else:
            with open(path, "wb") as file:
                file.writelines(parts)
    except OSError as error:  # of the temporary file, or without a name
        raise OSError(error.errno, error.strerror, path) from None


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError where :func:`write_whole` would, as far as can be seen without writing.

    For who works long for what it is going to write.
    """
    path = as_path("path", path)
    target, old, has_place = _look_at(path)
    folder = os.path.dirname(target) or os.curdir
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if has_place and old is not None:
        _check_replaceable(target, folder)
    elif has_place and not os.access(folder, os.W_OK | os.X_OK):
        os.stat(folder)  # says where it is not there
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _end_of_links(path: str) -> str:
    """The path of what symbolic links lead to, which may not be there yet."""
    for _ in range(_MOST_LINKS + 1):
        try:
            link = os.readlink(path)
        except OSError:  # no link, or nothing
            return path
        path = os.path.join(os.path.dirname(path), link)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _file_at(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _look_at(path: str) -> tuple[str, os.stat_result | None, bool]:
    """What a path leads to, the file there, and whether a new one can stand in its place.

    It cannot where a device is, nor what only /proc leads to. While other writers replace the file,
    two looks see two files: who takes that for a file without a place writes into one that another
    reads.
    """
    while True:
        target = _end_of_links(path)
        before, old, after = _file_at(target), _file_at(path), _file_at(target)
        if old is None:
            if after is None:
                return target, None, os.path.basename(target) != ""
        elif not stat.S_ISREG(old.st_mode):
            return target, old, False
        elif target == path or (after is not None and os.path.samestat(old, after)):
            return target, old, True
        elif _is_same(before, after):
            return target, old, False


def _is_same(a: os.stat_result | None, b: os.stat_result | None) -> bool:
    return a is b if a is None or b is None else os.path.samestat(a, b)


def _replace(target: str, old: os.stat_result | None, parts: Iterable[bytes | memoryview]) -> None:
    folder, name = os.path.split(target)
    if old is not None:
        _check_replaceable(target, folder)
    digest = f"{zlib.crc32(os.fsencode(name)):08x}"  # of two names that share it, both clean up
    prefix = os.path.join(folder, f".fastlstm-{digest}-")  # short, however long the name
    _remove_left_behind(prefix)
    opener = functools.partial(os.open, mode=0o666 if old is None else 0o600)
    is_replaced = False
    while not is_replaced:
        temporary = prefix + os.urandom(8).hex()
        # A handler of a signal that raises may do so after any call, this one, too. So it is no
        # number, which nobody would close, but an object.
        try:
            with open(temporary, "xb", buffering=0, opener=opener) as file:
                # Another writer may have taken it for one that was left behind, before the lock.
                if _lock(file.fileno()) and os.path.lexists(temporary):
                    for part in parts:
                        _write(file, part)
                    if old is not None:
                        _take_after(target, old, file.fileno())
                    os.fsync(file.fileno())
                    if sys.platform == "win32":
                        file.close()  # what is open cannot be renamed there
                    _take_place(temporary, target)
                    is_replaced = True
        finally:
            if not is_replaced:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
    _sync_folder(folder or os.curdir)


def _check_replaceable(target: str, folder: str) -> None:
    """Raise OSError where the user may not write to the file, or only to it."""
    effective = os.access in os.supports_effective_ids
    if not os.access(target, os.W_OK, effective_ids=effective):
        os.close(os.open(target, os.O_WRONLY))  # says why
    if not os.access(folder or os.curdir, os.W_OK | os.X_OK, effective_ids=effective):
        text = "its folder takes no new file, which a save needs to replace this one"
        raise PermissionError(errno.EACCES, f"{os.strerror(errno.EACCES)}: {text}")


def _take_place(temporary: str, target: str) -> None:
    try:
        os.replace(temporary, target)
    except OSError as error:
        if error.errno in _NOT_REPLACED:
            text = f"{error.strerror}: {_NOT_REPLACED[error.errno]}"
            raise OSError(error.errno, text) from None
        raise


def _write(file: FileIO, part: bytes | memoryview) -> None:
    """Write a part in pieces of a few megabytes, which let signals in between them."""
    rest = memoryview(part)
    rest = rest.cast("B") if rest.nbytes else rest[:0]
    while rest:
        rest = rest[file.write(rest[:_AT_ONCE]) :]


def _lock(descriptor: int) -> bool:
    """Lock a file; return whether nobody else has."""
    if sys.platform == "win32":
        return True  # what is open cannot be removed there
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: there nobody removes anything
        pass
    return True


def _remove_left_behind(prefix: str) -> None:
    """Remove the temporary files of writers that were killed: those that are not locked."""
    folder, start = os.path.split(prefix)
    try:
        names = os.listdir(folder or os.curdir)
    except OSError:  # one that may be written to, but not listed
        return
    for name in names:
        if name.startswith(start):
            with contextlib.suppress(OSError):  # a living writer's, or without locks
                _remove_unless_locked(os.path.join(folder, name))


def _remove_unless_locked(path: str) -> None:
    if sys.platform == "win32":
        os.unlink(path)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(descriptor)


def _take_after(target: str, old: os.stat_result, descriptor: int) -> None:
    """Give a new file the owner, attributes and mode of the old one, where the system lets."""
    if sys.platform == "win32":
        return  # a file has what its folder gives
    for owner in (old.st_uid, -1):
        with contextlib.suppress(OSError):
            os.fchown(descriptor, owner, old.st_gid)
            break
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.removexattr(descriptor, _ACCESS_LIST)  # which its folder gave it
        with contextlib.suppress(OSError):
            for name in os.listxattr(target):
                if name.startswith(_KEPT_ATTRIBUTES):
                    with contextlib.suppress(OSError):
                        os.setxattr(descriptor, name, os.getxattr(target, name))
    new = os.fstat(descriptor)
    mode = stat.S_IMODE(old.st_mode)
    if new.st_uid != old.st_uid:
        mode &= ~stat.S_ISUID
    if new.st_gid != old.st_gid:  # another group may do what everybody may, at most
        mode &= ~(stat.S_ISGID | stat.S_IRWXG) | ((mode & stat.S_IRWXO) << 3)
    with contextlib.suppress(OSError):  # of a file system without modes
        os.fchmod(descriptor, mode)


def _sync_folder(folder: str) -> None:
    """Put the new name onto the disk."""
    if sys.platform == "win32":
        return  # it opens no folders
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # one that may be written to, but not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # as some systems have it of folders
            raise
    finally:
        os.close(descriptor)
