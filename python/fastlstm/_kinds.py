"""What a file is that is not what was expected, for error messages."""

from __future__ import annotations

_PAGE = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_COMPRESSED = "compressed by {}: decompress it first"
_BEGINNINGS = {
    b"\x1f\x8b": _COMPRESSED.format("gzip"),
    b"\xfd7zXZ\0": _COMPRESSED.format("xz"),
    b"BZh": _COMPRESSED.format("bzip2"),
    b"\x28\xb5\x2f\xfd": _COMPRESSED.format("zstd"),
    b"\x04\x22\x4d\x18": _COMPRESSED.format("lz4"),
    b"7z\xbc\xaf\x27\x1c": "an archive of 7-Zip: unpack it first",
    b"Rar!": "an archive of RAR: unpack it first",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file: fastlstm.from_keras reads those of Keras",
    b"\x93NUMPY": "an array of NumPy's: numpy.load reads it",
    b"GGUF": "a GGUF file",
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"PK\x03\x04": "a zip archive, as torch.save writes: fastlstm.from_torch reads those",
    b"PK\x05\x06": "an empty zip archive",
}
# The first fields of an ONNX model: the format's version, then the producer's name or a graph.
_ONNX = (b"\x12", b"\x1a", b"\x3a", b"\x42")


def what_it_is_instead(head: bytes) -> str | None:
    """Say what often stands in the place of a file of weights; None where it is neither.

    Parameters
    ----------
    head : bytes
        The file's first bytes, 64 or more where it has them.
    """
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file that it stands for: fetch that with `git lfs pull`"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGE) or (text.startswith(b"<!--") and b"<html" in text):
        return "a web page, not the file that it should lead to: download the file itself"
    if not head:
        return "an empty file"
    return None


def kind_of(head: bytes) -> str | None:
    """Say what a file is, by its first bytes (4096, where it has them); None: that is not known."""
    if known := what_it_is_instead(head):
        return known
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if head[:1] == b"\x08" and head[2:3] in _ONNX:
        return "perhaps an ONNX model: fastlstm.from_onnx reads those"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "a pickle, as torch.save wrote before 1.6: fastlstm.from_torch reads those"
    return _kind_of_text(head)


def _kind_of_text(head: bytes) -> str | None:
    try:
        text = head.decode("utf-8-sig").lstrip()
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8-sig").lstrip()
        if error.start < len(head) - 3 or not text:  # not just a letter that is cut
            return None
    if any(ord(letter) < 32 and letter not in "\t\n\v\f\r\x1b" for letter in text):
        return None
    if text.startswith(("{", "[")):
        if '"weight_map"' in text:
            return "the index of a model in several files: read those that it names"
        return "JSON text"
    return "text"
