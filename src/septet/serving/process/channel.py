# SPDX-License-Identifier: Apache-2.0
"""Messages over a socket between two processes, each with its length before it."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

_LENGTH = struct.Struct("<I")
_TIMEVAL = struct.Struct("@ll")
_LARGEST = 1 << 31

Out = TypeVar("Out")
In = TypeVar("In")


class ChannelClosed(Exception):
    """The other side is gone, or speaks nonsense."""


class Channel(Generic[Out, In]):
    """Sends messages of one type and receives messages of another; sending is safe from any thread."""

    def __init__(self, sock: socket.socket, receives: object) -> None:
        self._socket = sock
        self._decoder: msgspec.msgpack.Decoder[In] = msgspec.msgpack.Decoder(receives)
        self._encoder = msgspec.msgpack.Encoder()
        self._sending = threading.RLock()  # what is collected while a message is sent may send one of its own
        self._buffer = bytearray()
        self._seconds: float | None = None

    def send(self, message: Out) -> None:
        """Send a message. Raises ChannelClosed."""
        framed = self._framed(message)
        try:
            with self._sending:
                self._socket.sendall(framed)
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def _framed(self, message: Out) -> bytes:
        body = self._encoder.encode(message)
        return _LENGTH.pack(len(body)) + body

    def send_at_once(self, message: Out) -> bytes:
        """Send what goes of a message without waiting; what is left is for `send_rest`. Raises ChannelClosed."""
        framed = self._framed(message)
        try:
            with self._sending:
                return framed[self._socket.send(framed, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return framed
        except OSError as error:
            raise ChannelClosed(str(error)) from error

    def send_rest(self, rest: bytes) -> None:
        """Send what `send_at_once` left, unless the other side is gone."""
        with suppress(OSError), self._sending:
            self._socket.sendall(rest)

    def arrived(self) -> list[In]:
        """The messages that have come as a whole, without waiting. Raises ChannelClosed."""
        try:
            chunk = self._socket.recv(65_536, socket.MSG_DONTWAIT)
            if not chunk:
                raise ChannelClosed("the other side is gone")
            self._buffer += chunk
            return self._whole()
        except BlockingIOError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            raise ChannelClosed(str(error)) from error

    def _whole(self) -> list[In]:
        """The messages that the buffer begins with."""
        messages: list[In] = []
        buffer, begin = self._buffer, 0
        while len(buffer) - begin >= _LENGTH.size:
            size = _size(buffer, begin)
            end = begin + _LENGTH.size + size
            if len(buffer) < end:
                break
            messages.append(self._decoder.decode(bytes(buffer[begin + _LENGTH.size : end])))
            begin = end
        del buffer[:begin]
        return messages

    def duplicate(self) -> socket.socket:
        """Another descriptor of the same socket, for whoever watches it; it tells of the end, whoever hung up."""
        return self._socket.dup()

    def receive(self, seconds: float | None = None) -> In:
        """Wait for a message. Raises ChannelClosed, TimeoutError after `seconds`."""
        try:
            if seconds != self._seconds:
                self._limit(seconds)
            size = _size(self._exactly(_LENGTH.size))
            return self._decoder.decode(self._exactly(size))
        except BlockingIOError as error:
            raise TimeoutError(f"nothing came within {seconds} s") from error
        except (OSError, msgspec.MsgspecError) as error:
            raise ChannelClosed(str(error)) from error

    def _limit(self, seconds: float | None) -> None:
        """Have the kernel keep the time: Python would ask, before each read, whether there is something."""
        whole, rest = divmod(seconds or 0.0, 1.0)
        limit = _TIMEVAL.pack(int(whole), int(rest * 1e6))
        for way in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, way, limit)
        self._seconds = seconds

    def _exactly(self, size: int) -> bytearray:
        buffer = self._buffer
        while len(buffer) < size:
            chunk = self._socket.recv(max(65_536, size - len(buffer)))
            if not chunk:
                raise ChannelClosed("the other side is gone")
            buffer += chunk
        self._buffer = buffer[size:]
        del buffer[size:]
        return buffer

    def close(self) -> None:
        """Hang up: whoever waits in `receive`, here or there, is told."""
        with suppress(OSError):  # the other side was quicker
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _size(buffer: bytearray, begin: int = 0) -> int:
    """The length of the message whose frame begins there. Raises ChannelClosed for one that cannot be."""
    [size] = _LENGTH.unpack_from(buffer, begin)
    if size > _LARGEST:
        raise ChannelClosed("a message of impossible length")
    return int(size)
