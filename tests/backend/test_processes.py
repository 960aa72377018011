"""Programs that are started, waited for, and ended with all that they started."""

import errno
import os
import signal
import socket
import sys
import threading
import time

import pytest

from backend.processes import (
    ProcessError,
    check_port,
    free_port,
    get_json,
    running,
    running_backend,
)
from tests.backend.calls import wait_until

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
{then}
"""


def program(then="time.sleep(600)"):
    return [sys.executable, "-c", PARENT.format(then=then)]


def has_ended(process_id, timeout_seconds=60):
    """Whether a process that is not ours to wait for goes away."""
    end = time.monotonic() + timeout_seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{process_id}/stat", encoding="ascii") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True  # only its new parent is late
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def log(tmp_path):
    return tmp_path / "folder" / "program.log"


def child_of(log):
    return int(log.read_text(encoding="utf-8").split()[0])


def test_what_a_program_started_ends_with_the_block_also_when_it_raises(log):
    with pytest.raises(KeyboardInterrupt):
        with running(program(), log=log, is_ready=lambda: bool(log.read_text())):
            child = child_of(log)
            os.kill(child, 0)
            raise KeyboardInterrupt
    assert has_ended(child)


def test_a_second_interrupt_ends_what_takes_too_long_to_end(log):
    stubborn = PARENT.format(then="time.sleep(600)").replace(
        '"import time; time.sleep(600)"',
        '"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"',
    )
    command = [sys.executable, "-c", f"import signal; signal.signal(signal.SIGTERM, lambda *_: "
               f"print('asked', flush=True))\n{stubborn}"]  # fmt: skip
    with pytest.raises(KeyboardInterrupt, match="second"):
        with running(command, log=log, is_ready=lambda: bool(log.read_text())):
            child = child_of(log)

            def interrupt():
                wait_until(lambda: "asked" in log.read_text())
                os.kill(os.getpid(), signal.SIGUSR1)

            def second(*_):
                raise KeyboardInterrupt("second")

            before = signal.signal(signal.SIGUSR1, second)
            threading.Thread(target=interrupt).start()
    signal.signal(signal.SIGUSR1, before)
    assert has_ended(child)


def test_what_a_program_leaves_behind_ends_too_when_it_ends_by_itself(log):
    with pytest.raises(ProcessError, match=r"ended with status 3; see .*program\.log"):
        with running(program("sys.exit(3)"), log=log, is_ready=lambda: False):
            pass
    assert has_ended(child_of(log))


def test_a_program_that_is_never_ready_is_ended(log):
    def refuse():
        raise ConnectionRefusedError

    with pytest.raises(ProcessError, match="not ready after 1 s"):
        with running(program(), log=log, is_ready=refuse, timeout_seconds=1):
            pass


def test_variables_are_added_to_the_environment(log):
    command = [sys.executable, "-c", "import os, time; print(os.environ['A_B'], flush=True);"
               "print('PATH' in os.environ, flush=True); time.sleep(600)"]  # fmt: skip
    with running(
        command, log=log, is_ready=lambda: "True" in log.read_text(), variables={"A_B": "given"}
    ):
        assert log.read_text(encoding="utf-8").split() == ["given", "True"]


def test_the_service_answers_when_the_block_begins(log, tmp_path):
    folders = {"SAM2_DATA_FOLDER": str(tmp_path / "d"), "SAM2_MEDIA_CACHE": str(tmp_path / "m")}
    with running_backend(log=log, variables=folders) as url:
        assert get_json(f"{url}/health")["model"] == "ready"


def test_a_model_that_cannot_be_loaded_is_said(log, tmp_path):
    folders = {"SAM2_DATA_FOLDER": str(tmp_path / "d"), "SAM2_MEDIA_CACHE": str(tmp_path / "m")}
    checkpoint = tmp_path / "none.safetensors"
    with pytest.raises(ProcessError, match="none.safetensors"):
        with running_backend(["--checkpoint", str(checkpoint)], log=log, variables=folders):
            pass


def test_a_free_port_is_one_to_listen_on():
    assert 1024 <= free_port() < 65536


def test_a_port_that_cannot_be_had_says_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 .* another program .* --port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(OSError, match="is --host an address of this machine"):
        check_port("192.0.2.1", 9090)


def test_a_port_of_the_administrators_says_so(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(OSError, match="port 80 .* administrator's: give a --port from 1024 on"):
        check_port("127.0.0.1", 80)
