"""Frames of files that strangers made, decoded in a process that may break.

FFmpeg and the image libraries are large programs in C, and what they read is
other people's. `IsolatedSource` has them read it in a process of its own, with
a limit on its memory and on the time for each step: a file that crashes or
stalls a decoder is an error about that file, and nothing else notices.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.types import VideoInfo
from sam2_model.video.channel import Channel
from sam2_model.video.errors import OpeningGivenUp, VideoDecodeError
from sam2_model.video.frame_source import FrameSource, log_and_warn
from sam2_model.video.reader import MAX_PIXELS

_START_SECONDS = 120.0
_LOOK_SECONDS = 0.25
"""So often it is asked whether a file that is being opened is still wanted."""
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """What one file may cost."""

    memory_bytes: int = 4 * 2**30
    """Of the process that decodes it, all of its address space."""
    open_seconds: float = 600.0
    """Until the file's frames are known; some files are decoded once for that."""
    frame_seconds: float = 60.0
    """Until one picture is there."""
    max_pixels: int = MAX_PIXELS
    """Of one picture, width times height."""
    max_frames: int | None = None
    """None: as many as there are."""
    idle_seconds: float = 10.0
    """A decoder that nobody asks for so long gives its memory back, but for the index."""


class IsolatedSource(FrameSource):
    """A video file, or images of its frames, decoded elsewhere.

    Frames, damage and closing are as of `VideoFileSource` and `ImageListSource`.
    A decoder that ended is started again at the next request.

    Args:
        files: a video file, or paths of images of one size.
        limits: what they may cost.
        decoder_threads: as of `VideoFileSource`.
        is_given_up: asked now and then while the file is opened; True ends that.

    Raises:
        FileNotFoundError: a path does not exist.
        VideoDecodeError: no frame can be decoded, or not within the limits; it
            names the file and the cause.
        OpeningGivenUp: `is_given_up` said so.
    """

    def __init__(
        self,
        files: Path | Sequence[Path],
        *,
        limits: DecodingLimits = DecodingLimits(),
        decoder_threads: int | None = None,
        is_given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        is_list = not isinstance(files, Path)
        paths = list(files) if is_list else [files]
        name = f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else str(paths[0])
        self._name = name
        self._limits = limits
        self._asked = {
            "files": [str(Path(path).absolute()) for path in paths],
            "is_list": is_list,
            "max_frames": limits.max_frames,
            "max_pixels": limits.max_pixels,
            "idle_seconds": limits.idle_seconds,
            "decoder_threads": decoder_threads,
        }
        self._lock = threading.Lock()
        self._decoder: _DecoderProcess | None = None
        self._is_closed = False
        info, problems = self._open(is_given_up)
        super().__init__(name, info)
        for problem in problems:
            log_and_warn(problem)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._decoder is not None:
                self._decoder.close()
                self._decoder = None

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"{self._name}: the frame source is closed")

    def _open(
        self, is_given_up: Callable[[], bool] = lambda: False
    ) -> tuple[VideoInfo, list[str]]:
        decoder = _processes.start(self._limits.memory_bytes)
        try:
            with self._explained(decoder, self._limits.open_seconds):
                decoder.channel.wait_at_most(self._limits.open_seconds)
                decoder.channel.send(self._asked)
                _wait(decoder.channel, self._limits.open_seconds, is_given_up)
                answer = _checked(decoder.channel.receive())
                info = _video_info(answer["info"], self._limits)
                problems = [str(item) for item in answer["warnings"]]
        except OpeningGivenUp:
            decoder.kill()  # it would not notice before it is done
            raise
        except BaseException:
            decoder.close()
            raise
        self._decoder = decoder
        return info, problems

    def _running(self) -> _DecoderProcess:
        """With the lock held."""
        self._check_open()
        if self._decoder is None:
            info, _ = self._open()
            if info != self._info:
                raise VideoDecodeError(f"{self._name}: the file has changed")
        return self._decoder

    def _read_frame(self, index: int) -> tuple[np.ndarray, str]:
        with self._lock:
            decoder = self._running()
            with self._explained(decoder, self._limits.frame_seconds):
                decoder.channel.wait_at_most(self._limits.frame_seconds)
                decoder.channel.send({"frame": index})
                return self._received(decoder.channel, index)

    def _read_range(
        self, start: int, stop: int, step: int
    ) -> Iterator[tuple[int, np.ndarray, str]]:
        channel, theirs = Channel.pair()
        with contextlib.closing(channel), theirs:
            with self._lock:
                decoder = self._running()
                with self._explained(decoder, self._limits.frame_seconds):
                    decoder.channel.send({"range": [start, stop, step]}, give=theirs)
            theirs.close()
            channel.wait_at_most(self._limits.frame_seconds)
            for index in range(start, stop)[::step]:
                with self._explained(decoder, self._limits.frame_seconds):
                    item = self._received(channel, index)
                yield index, *item

    def _received(self, channel: Channel, index: int) -> tuple[np.ndarray, str]:
        answer = _checked(channel.receive())
        height, width = self._info.height, self._info.width
        if answer["shape"] != [height, width, 3] or answer["frame"] != index:
            raise ValueError(f"frame {index} is {answer}")
        picture = np.empty((height, width, 3), np.uint8)
        channel.receive_bytes(memoryview(picture).cast("B"))
        return picture, str(answer["problem"])

    @contextlib.contextmanager
    def _explained(self, decoder: _DecoderProcess, seconds: float) -> Iterator[None]:
        """What goes wrong with the process, as an error about the file."""
        try:
            yield
        except _NoMemory:
            cause = f"needs more than {self._limits.memory_bytes // 2**20} MiB of memory"
        except TimeoutError:
            cause = f"took longer than {seconds:.3g} s"
        except (EOFError, ConnectionError):
            cause = (
                "crashed, or needed more than its "
                f"{self._limits.memory_bytes // 2**20} MiB of memory"
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, VideoDecodeError):
                raise
            cause = f"gave a wrong answer ({error})"
        else:
            return
        decoder.kill()
        if decoder is self._decoder:
            self._decoder = None
        raise VideoDecodeError(f"{self._name}: cannot be decoded: the decoder {cause}") from None


def _wait(channel: Channel, seconds: float, is_given_up: Callable[[], bool]) -> None:
    """Until there is an answer. Raises TimeoutError, and OpeningGivenUp."""
    end = time.monotonic() + seconds
    while not channel.has_message_within(min(_LOOK_SECONDS, end - time.monotonic())):
        if time.monotonic() >= end:
            raise TimeoutError
        if is_given_up():
            raise OpeningGivenUp


class _NoMemory(Exception):
    pass


def _checked(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    if "error" not in answer:
        return answer
    kind, error = answer["kind"], str(answer["error"])
    if kind == "missing":
        raise FileNotFoundError(error)
    if kind == "undecodable":
        raise VideoDecodeError(error)
    if kind == "memory":
        raise _NoMemory
    raise RuntimeError(f"a decoder process failed: {error}")


def _video_info(value: Mapping[str, Any], limits: DecodingLimits) -> VideoInfo:
    times = tuple(float(time) for time in value["frame_times_seconds"])
    info = VideoInfo(**{**value, "frame_times_seconds": times})
    if not (type(info.width) is type(info.height) is int and info.width > 0 < info.height):
        raise ValueError(f"{info.width!r} x {info.height!r} pixels")
    if info.width * info.height > limits.max_pixels:
        raise ValueError(f"{info.width} x {info.height} pixels")
    return info


# --- the processes ----------------------------------------------------------------


@dataclass(frozen=True)
class _DecoderProcess:
    process_id: int
    channel: Channel
    parent: Channel

    def close(self) -> None:
        """It ends when the ranges that are being read have been."""
        self.channel.close()

    def kill(self) -> None:
        self.channel.close()
        _processes.kill(self)


class _Processes:
    """Starts decoders, by a process that has everything imported; itself started at first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._channel: Channel | None = None
        self._owner = 0

    def start(self, memory_bytes: int) -> _DecoderProcess:
        ours, theirs = Channel.pair()
        with self._lock, theirs:
            try:
                process_id = self._ask(theirs, memory_bytes)
            except (OSError, EOFError):  # somebody has ended it
                self._end()
                process_id = self._ask(theirs, memory_bytes)
            return _DecoderProcess(process_id, ours, self._channel)

    def _ask(self, theirs: Any, memory_bytes: int) -> int:
        channel = self._started()
        channel.send({"memory_bytes": memory_bytes}, give=theirs)
        return channel.receive()["process"]

    def kill(self, decoder: _DecoderProcess) -> None:
        with self._lock:
            if decoder.parent is self._channel:
                with contextlib.suppress(OSError):
                    self._channel.send({"kill": decoder.process_id})

    def _started(self) -> Channel:
        if self._channel is not None and self._owner == os.getpid():
            return self._channel
        if self._channel is not None:  # another's, whose fork this process is
            self._channel.close()
        channel, theirs = Channel.pair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: the folder that this runs in is no place to import from.
                [
                    sys.executable, "-P", "-m", f"{__package__}.decoder_process",
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                start_new_session=True,
            )
        channel.wait_at_most(_START_SECONDS)
        self._channel, self._owner = channel, os.getpid()
        return channel

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None and self._owner == os.getpid():
            self._process.wait()
            self._process = None

    def end(self) -> None:
        """With it, all decoders."""
        with self._lock:
            self._end()


def _environment() -> dict[str, str]:
    """Nothing of the service's own, which may be secret, and few threads' stacks and heaps."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    paths = [str(Path(path or ".").absolute()) for path in sys.path]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


_processes = _Processes()
atexit.register(_processes.end)
