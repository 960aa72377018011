"""The processes that decode files of strangers: `python -m sam2_model.video.decoder_process FD`.

One process, started once, has everything imported and forks a decoder for each video, which
takes milliseconds. A decoder lives under limits on its memory, writes no files, knows nothing
of the service's environment and ends when nobody is at the other end of its sockets. This is
the inside; `isolated` is what the service uses.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import traceback
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, Mapping

from sam2_model.video.channel import Channel
from sam2_model.video.errors import VideoDecodeError
from sam2_model.video.frame_source import FrameSource
from sam2_model.video.images import ImageListSource
from sam2_model.video.opening import open_file

_OPEN_FILES = 256


# --- the process that forks -------------------------------------------------------


def main() -> int:
    control = socket.socket(fileno=int(sys.argv[1]))
    logging.getLogger().addHandler(logging.NullHandler())
    channel = Channel(control)
    alive: set[int] = set()
    try:
        while True:
            message, given = channel.receive_with_socket()
            _reap(alive)
            if "kill" in message:
                _kill(message["kill"], alive)
            elif given is not None:
                process_id = _forked(given, control, message["memory_bytes"])
                alive.add(process_id)
                given.close()
                channel.send({"process": process_id})
    except (EOFError, OSError):
        for process_id in alive:
            _kill(process_id, alive)
    return 0


def _reap(alive: set[int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (process_id := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            alive.discard(process_id)


def _kill(process_id: int, alive: set[int]) -> None:
    # Not reaped yet, so the number cannot be another's by now.
    if process_id in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def _forked(given: socket.socket, control: socket.socket, memory_bytes: int) -> int:
    process_id = os.fork()
    if process_id:
        return process_id
    status = 1
    try:
        control.close()
        _limit(memory_bytes)
        _Decoder(Channel(given)).serve()
        status = 0
    except MemoryError:
        pass  # told by the sockets that close
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _limit(memory_bytes: int) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError):  # a system that has no such limit, as macOS
            resource.setrlimit(kind, (most, most))


# --- a decoder --------------------------------------------------------------------


class _Decoder:
    """Serves one source. Each range of frames goes over a socket and a thread of its own."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._idle_seconds = 0.0
        """As who asks has it."""
        self._threads: list[threading.Thread] = []

    def serve(self) -> None:
        """Until the other end closes, and each range has been taken or dropped."""
        with contextlib.suppress(EOFError, OSError):
            source = self._opened()
            if source is not None:
                self._answer(source)
        for thread in self._threads:
            thread.join()

    def _opened(self) -> FrameSource | None:
        asked = self._channel.receive()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                source = _open(asked)
        except (Exception, MemoryError) as error:
            self._channel.send(_failure(error))
            return None
        self._idle_seconds = asked["idle_seconds"]
        told = [str(item.message) for item in caught]
        self._channel.send({"info": asdict(source.info), "warnings": told})
        return source

    def _answer(self, source: FrameSource) -> None:
        while True:
            asked, given = self._next_request(source)
            if given is not None:
                arguments = (source, Channel(given), *asked["range"])
                thread = threading.Thread(target=_send_range, args=arguments)
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
                thread.start()
                continue
            try:
                picture, problem = source._read_frame(asked["frame"])
            except (Exception, MemoryError) as error:
                self._channel.send(_failure(error))
            else:
                _send_picture(self._channel, asked["frame"], picture, problem)

    def _next_request(self, source: FrameSource) -> tuple[Any, socket.socket | None]:
        """Memory is given back while none comes: of a 4K video it is a gigabyte."""
        while not self._channel.has_message_within(self._idle_seconds):
            source.rest()
            _give_memory_back()
            if not any(thread.is_alive() for thread in self._threads):
                break  # else there will be more, when that range has been read
        return self._channel.receive_with_socket()


def _open(asked: Mapping[str, Any]) -> FrameSource:
    limits = {"max_pixels": asked["max_pixels"]}
    if asked["is_list"]:
        return ImageListSource([Path(name) for name in asked["files"]], **limits)
    return open_file(
        asked["files"][0],
        max_frames=asked["max_frames"],
        decoder_threads=asked["decoder_threads"],
        **limits,
    )


def _send_range(source: FrameSource, channel: Channel, start: int, stop: int, step: int) -> None:
    with contextlib.closing(channel), contextlib.suppress(OSError):
        try:
            with contextlib.closing(source._read_range(start, stop, step)) as pictures:
                for index, picture, problem in pictures:
                    _send_picture(channel, index, picture, problem)
        except OSError:
            raise  # nobody takes them any more
        except (Exception, MemoryError) as error:
            channel.send(_failure(error))


def _give_memory_back() -> None:
    """What the C library keeps of it for later: FFmpeg's pictures, in many small pieces."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def _send_picture(channel: Channel, index: int, picture: Any, problem: str) -> None:
    channel.send({"frame": index, "shape": picture.shape, "problem": problem})
    channel.send_bytes(memoryview(picture).cast("B"))


def _failure(error: BaseException) -> dict[str, str]:
    if isinstance(error, FileNotFoundError):
        return {"error": str(error), "kind": "missing"}
    if isinstance(error, VideoDecodeError):
        return {"error": str(error), "kind": "undecodable"}
    if isinstance(error, MemoryError):
        return {"error": "", "kind": "memory"}
    traceback.print_exception(error)
    return {"error": f"{type(error).__name__}: {error}", "kind": "bug"}


if __name__ == "__main__":
    sys.exit(main())
