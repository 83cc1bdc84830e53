# SPDX-License-Identifier: Apache-2.0
"""``config.pbtxt``: protobuf text to `ModelConfig` and back, and where in the text a field stands."""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import json_format, text_format

from septet.errors import ConfigInvalid
from septet.model_config.config import ModelConfig
from septet.model_config.convert import from_proto, to_proto
from septet.stubs import model_config_pb2

_TOKEN = re.compile(r"""\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[A-Za-z_]\w*|[{}<>\[\]:,;]|\n|[^\s]""")
_WORD = re.compile(r"[A-Za-z_]\w*")


def parse(text: str, source: str = "config.pbtxt") -> ModelConfig:
    """Read protobuf text. Raises ConfigInvalid, which names `source`, line and field."""
    message = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise ConfigInvalid(f"{source}, line {error.GetLine() or 1}: {_reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{source}: not readable as protobuf text: {error}") from error
    return from_proto(message)


def parse_json(text: str, source: str = "the configuration given") -> ModelConfig:
    """Read the JSON form of a configuration. Raises ConfigInvalid."""
    message = model_config_pb2.ModelConfig()
    if not text.lstrip().startswith("{"):
        raise ConfigInvalid(f"{source}: not a JSON object")
    try:
        json_format.Parse(text, message)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{source}: {' '.join(str(error).split())}") from error
    return from_proto(message)


def read(path: Path) -> ModelConfig:
    """Read a file. Raises ConfigInvalid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path.name}: not readable: {getattr(error, 'strerror', None) or error}") from error
    return parse(text, path.name)


def write(config: ModelConfig) -> str:
    """The protobuf text of a configuration; reading it gives the same configuration."""
    return str(text_format.MessageToString(to_proto(config)))


def line_of(text: str, field: str) -> int | None:
    """The line, from 1, where `field` (``input[1].dims``) or else what should hold it stands in a text."""
    found = _lines(text)
    while field:
        if (line := found.get(field, found.get(_first(field)))) is not None:
            return line
        field = field.rpartition(".")[0] if "." in field else field.rpartition("[")[0]
    return None


def _lines(text: str) -> dict[str, int]:
    """Field -> line, for well-formed text; every ``name`` and ``name[i]`` that occurs."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    path: list[str] = []  # what the open braces belong to; "[" for a list
    line, field = 1, ""
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif _WORD.fullmatch(token) and not field.endswith(":"):
            field = ".".join([*(each for each in path if each != "["), token])
            lines.setdefault(field, line)
        elif token == ":":
            field += ":"
        elif token == "[":
            path.append("[")
        elif token in "{<":
            name = field.rstrip(":")
            entry = f"{name}[{counts.setdefault(name, 0)}]"
            counts[name] += 1
            lines.setdefault(entry, line)
            path.append(entry.rpartition(".")[2])
            field = ""
        elif token in "}>":
            closed = path.pop() if path else ""
            inside = [each for each in path if each != "["]
            field = ".".join([*inside, closed.partition("[")[0]]) + ":" if path and path[-1] == "[" else ""
        elif token == "]":
            path and path.pop()
            field = ""
        elif field.endswith(":") and "[" not in path[-1:]:
            field = ""
    return {**{_first(field): line for field, line in lines.items()}, **lines}


def _first(field: str) -> str:
    """A message that stands once needs no index: ``dynamic_batching[0].priority_levels`` without it, and
    ``ensemble_scheduling.step[0]``, whose steps may be several."""
    return field.replace("[0]", "")


def _reason(error: text_format.ParseError) -> str:
    """protobuf's sentence without the position before it."""
    text = re.sub(r"^\d+:\d+ : ", "", " ".join(str(error).split()))
    unknown = re.search(r'Message type "inference\.(\S+)" has no field named "(\S+)"', text)
    return f"{unknown[1]} has no field {unknown[2]!r}" if unknown else text.replace("inference.", "")
