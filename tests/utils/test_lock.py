"""The lock of a folder: who is named, who is let in, and where there are no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from memo_habitat.errors import UserError
from memo_habitat.utils.lock import HeldError, hold

HOLDER = """
import sys
from pathlib import Path
from memo_habitat.utils.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_suspended_process_keeps_it_and_a_killed_one_does_not(tmp_path):
    path = tmp_path / "new/.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            holder.send_signal(signal.SIGSTOP)
            with pytest.raises(HeldError, match=f"process {holder.pid} is at work in"), hold(path):
                pass
        finally:
            holder.kill()
    with hold(path):
        assert path.read_text().split() == [str(os.getpid()), socket.gethostname()]


def test_a_holder_on_another_machine_is_named_with_it(tmp_path):
    path = tmp_path / ".lock"
    with hold(path):
        path.write_text("17 node3\n")
        with pytest.raises(HeldError, match="process 17 on node3 is at work"), hold(path):
            pass


def test_who_waits_gets_it_as_soon_as_it_is_free(tmp_path):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        threading.Timer(0.3, holder.kill).start()
        with hold(path, timeout=30):
            assert holder.wait() < 0


def test_it_is_free_again_after_an_error_within(tmp_path):
    with pytest.raises(KeyError), hold(tmp_path / ".lock"):
        raise KeyError
    with hold(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_keeps_nobody_from_working(tmp_path, monkeypatch, code):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold(tmp_path / ".lock"), hold(tmp_path / ".lock"):
        pass


def test_a_lock_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file/.lock"
    with pytest.raises(UserError, match=f"cannot write {path}"), hold(path):
        pass


def test_of_processes_that_train_together_the_first_holds_it_for_all(tmp_path, monkeypatch):
    with hold(tmp_path / ".lock"):
        for name, value in {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        with hold(tmp_path / ".lock"):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(HeldError), hold(tmp_path / ".lock"):
            pass
