# SPDX-License-Identifier: Apache-2.0
"""Fetch a published file: resumed where it broke off, checked, and put into the cache whole."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import platformdirs

from septet.errors import ChecksumMismatch, FetchError, Unreachable

CONNECT_SECONDS = 10.0
TRIES = 3
CHUNK = 1 << 20

OnBytes = Callable[[int, int | None], None]
"""Takes the number of bytes so far and, where it is known, of the whole file."""


def cache_dir() -> Path:
    """Where fetched and built files are kept: ``$SEPTET_CACHE``, else the user's cache folder."""
    asked = os.environ.get("SEPTET_CACHE")
    return Path(asked) if asked else Path(platformdirs.user_cache_dir("septet"))


def data_dir(network: str) -> Path:
    """Where the data set of `network` is looked for when ``--data`` does not say."""
    return cache_dir() / "data" / network


def fetch(url: str, to: Path, md5: str, *, tries: int = TRIES, on_bytes: OnBytes = lambda done, of: None) -> Path:
    """Fetch `url` to `to` unless it is there already, and return `to`.

    What arrived before a break is kept beside it and the rest asked for. Raises Unreachable,
    ChecksumMismatch, FetchError (the disk).
    """
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with _alone(to):
            if not to.exists():
                _fetch_new(url, to, md5, tries, on_bytes)
    except (FetchError, KeyboardInterrupt):
        raise
    except OSError as error:
        raise FetchError(f"{to}: {error.strerror or error}") from error
    return to


def _fetch_new(url: str, to: Path, md5: str, tries: int, on_bytes: OnBytes) -> None:
    part = to.with_name(f"{to.name}.part")
    for attempt in range(1, tries + 1):
        try:
            _continue(url, part, on_bytes)
            break
        except (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError) as error:
            if attempt == tries or _is_final(error):
                raise Unreachable(f"{url}: {_reason(error)}") from error
            time.sleep(2.0**attempt / 4)
    if (seen := md5_of(part)) != md5:
        part.unlink()
        raise ChecksumMismatch(f"{url}: MD5 is {seen}, published as {md5}; what arrived was thrown away")
    part.replace(to)


def _continue(url: str, part: Path, on_bytes: OnBytes) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "septet"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        answer = urllib.request.urlopen(request, timeout=CONNECT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if done and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all of it was there already: the checksum will tell
        raise
    with cast(http.client.HTTPResponse, answer) as body:
        resumed = body.status == http.HTTPStatus.PARTIAL_CONTENT
        done = done if resumed else 0
        of = done + body.length if body.length is not None else None
        with part.open("ab" if resumed else "wb") as file:
            while chunk := body.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                on_bytes(done, of)
    if of is not None and done < of:
        raise ConnectionError(f"broke off after {done:,} of {of:,} bytes")


def _is_final(error: Exception) -> bool:
    """Whether asking again would be answered alike: the server said no."""
    return isinstance(error, urllib.error.HTTPError) and error.code < 500


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(error.reason if isinstance(error, urllib.error.URLError) else error) or type(error).__name__


def md5_of(path: Path) -> str:
    """The MD5 of a file, in hexadecimal; it finds damage, not malice."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Hold a lock beside `to`, so that two processes do not write one file."""
    with to.with_name(f"{to.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
