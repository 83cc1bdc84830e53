# SPDX-License-Identifier: Apache-2.0
"""``pb_utils``: models that a model has its server load and unload, where model control is explicit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from septet.serving.process.channel import ChannelClosed
from septet.serving.process.requests import HOST
from septet.serving.process.tensors import TritonModelException

MOST = 1 << 30
"""Bytes that the files of one model may have together."""


def load_model(model_name: str, config: str = "", files: Mapping[str, bytes] | None = None) -> None:
    """Load a model, or load it anew; returns once it is ready.

    `config` is its configuration in JSON, `files` are those of its folder by ``file:PATH``, as in Triton's model
    repository extension. Raises TypeError, TritonModelException (also for a model that is being loaded itself).
    """
    contents = _contents(_text("model_name", model_name), files)
    _done("load", model_name, lambda: HOST[0].caller.load(model_name, _text("config", config), contents))


def unload_model(model_name: str, unload_dependents: bool = False) -> None:
    """Let a model end, which goes on after this returns, and with it, if asked, what an ensemble is made of.

    Raises TypeError, TritonModelException (also for a model that is being loaded itself).
    """
    _done("unload", model_name, lambda: HOST[0].caller.unload(model_name, bool(unload_dependents)))


def _done(what: str, model: str, ask: Callable[[], str]) -> None:
    """Have the server do it. Raises TypeError, TritonModelException."""
    if _text("model_name", model) and model == HOST[0].loading:  # each would wait for the other
        raise TritonModelException(f"Failed to {what} model: '{model}' is being loaded")
    try:
        error = ask()
    except UnicodeEncodeError as wrong:
        error = str(wrong)
    except ChannelClosed as closed:
        raise TritonModelException("the server is gone") from closed
    if error:
        raise TritonModelException(f"Failed to {what} model: {error}")


def _contents(model: str, files: Mapping[str, bytes] | None) -> dict[str, bytes]:
    if files is None:
        return {}
    if not isinstance(files, Mapping):
        raise TritonModelException(
            f"failed to load model '{model}', files should be a dictionary of file paths and file contents"
        )
    for name, content in files.items():
        if not isinstance(content, bytes):
            raise TypeError(f"{_text('the path of a file', name)!r} must be bytes, not {type(content).__name__}")
        _text("the path of a file", name)
    if sum(map(len, files.values())) > MOST:
        raise TritonModelException(f"Failed to load model: its files have more than {MOST} bytes together")
    return dict(files)


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be text, not {type(value).__name__}")
    return value
