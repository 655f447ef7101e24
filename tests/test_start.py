"""docs/start.md: its commands and programs do what the page says, in its order."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

PAGE = (Path(__file__).parent.parent / "docs/start.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    """What the page has after a mark."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, marker
    return found[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after the training, and what that printed."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "train.py").write_text(block("train.py"), encoding="utf-8")
    assert "```sh\npython train.py\n```" in PAGE
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, check=True, capture_output=True, text=True
    )
    return folder, done.stdout


@pytest.fixture(scope="module")
def server(trained: tuple[Path, str]) -> Iterator[str]:
    """Its address, of a port that is free here."""
    folder, _ = trained
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = block("serve.py")
    assert program.count("8000") == 1
    (folder / "serve.py").write_text(program.replace("8000", str(port)), encoding="utf-8")
    assert "```sh\npython serve.py\n```" in PAGE
    with subprocess.Popen([sys.executable, "serve.py"], cwd=folder, stderr=subprocess.PIPE) as run:
        try:
            while True:
                assert run.poll() is None, run.stderr and run.stderr.read()
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            run.kill()


def request() -> list[str]:
    """The words of the page's command."""
    command = shlex.split(block("request"))
    assert (command[:2], command[3]) == (["curl", "-d"], "http://127.0.0.1:8000")
    return command


def ask(server: str, data: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(server, data.encode()) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_training_prints_what_the_page_says(trained: tuple[Path, str]) -> None:
    assert trained[1] == block("of train.py")
    assert (trained[0] / "gestures.safetensors").stat().st_size < 1e5


def test_the_server_answers(server: str) -> None:
    assert ask(server, request()[2]) == (200, block("of request").strip())


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_command_asks(server: str) -> None:
    done = subprocess.run(
        [*request()[:3], "-sS", server], check=True, capture_output=True, text=True
    )
    assert done.stdout == block("of request").strip()


@pytest.mark.parametrize("data", ["[]", "[[1, 2, 3]]", "{}", "gesture", '[["a", "b"]]', "null"])
def test_what_is_no_gesture_is_an_error_400(data: str, server: str) -> None:
    status, text = ask(server, data)
    assert status == 400
    assert "Error code explanation" in text
    assert ask(server, request()[2])[0] == 200  # and it goes on
