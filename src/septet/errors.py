# SPDX-License-Identifier: Apache-2.0
"""Every error that Septet raises on purpose.

::

    SeptetError
    ├── UsageError              the command or call asks for what cannot be
    │   ├── UnknownNetwork
    │   ├── UnknownEngine
    │   └── ScenarioNotInCategory
    ├── ModelError              the model file
    │   ├── ModelNotFound
    │   ├── ModelInvalid
    │   └── NotSequences
    ├── EngineError             the engine that runs it
    │   ├── EngineUnavailable
    │   ├── PrecisionUnsupported
    │   ├── TensorMismatch
    │   ├── InferenceFailed
    │   └── EngineClosed
    ├── OptimizeError           the search for a faster form of a network
    │   ├── CandidateImpossible
    │   ├── SearchElsewhere
    │   └── NotOptimized
    ├── DataError               samples, labels, images
    ├── FetchError              downloads
    │   ├── Unreachable
    │   └── ChecksumMismatch
    ├── ResultsError            results files and folders
    │   ├── ResultsUnreadable
    │   ├── ResultsNewer
    │   ├── ResultsExist
    │   └── ResultsNotWritten
    ├── RunError                a benchmark run that did not finish
    │   ├── RunCrashed
    │   └── NoValidResult
    └── ServingError            a server's answer to a request it does not fulfil
        ├── RequestInvalid
        │   └── RegionInvalid
        ├── TooLarge
        ├── Overloaded
        ├── Unsupported
        ├── Forbidden
        ├── ServiceUnknown
        ├── ModelUnknown
        ├── VersionUnknown
        ├── RegionUnknown
        ├── RegionExists
        ├── ConfigInvalid       what a repository says of a model
        ├── LoadFailed
        ├── ModelNotReady
        ├── ControlDisabled
        ├── Stopping
        ├── PortUnavailable
        ├── Refused             what a client is told by a server
        ├── QueueFull
        ├── RequestTimedOut
        ├── DeadlineExceeded
        ├── RequestCancelled
        ├── ModelFailed         what a Python model raised, with its own code
        └── InstanceCrashed

The command line prints one as a single line and exits with its ``exit_code``; a server answers with its
``status``.
"""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """What became of a request: Triton's code, and the numbers that HTTP and gRPC have for it.

    As in Triton's ``http_server.cc`` and ``grpc_utils.cc``; TOO_LARGE, DEADLINE and OVERLOADED, which Triton
    lacks, follow RFC 9110 and gRPC's own table.
    """

    UNKNOWN = ("UNKNOWN", 400, 2)
    INTERNAL = ("INTERNAL", 500, 13)
    NOT_FOUND = ("NOT_FOUND", 404, 5)
    INVALID_ARG = ("INVALID_ARG", 400, 3)
    UNAVAILABLE = ("UNAVAILABLE", 503, 14)
    UNSUPPORTED = ("UNSUPPORTED", 501, 12)
    ALREADY_EXISTS = ("ALREADY_EXISTS", 400, 6)
    CANCELLED = ("CANCELLED", 400, 1)
    FORBIDDEN = ("FORBIDDEN", 403, 7)
    TOO_LARGE = ("TOO_LARGE", 413, 8)
    DEADLINE = ("DEADLINE", 504, 4)
    OVERLOADED = ("OVERLOADED", 503, 8)

    def __init__(self, code: str, http: int, grpc: int) -> None:
        self.code = code
        self.http = http
        self.grpc = grpc


class SeptetError(Exception):
    """Base of all errors that Septet raises on purpose; its text is one line meant for a person."""

    exit_code = 1
    status: Status = Status.INTERNAL


class UsageError(SeptetError):
    """The command or call asks for something that does not exist or does not fit together."""

    exit_code = 2
    status = Status.INVALID_ARG


class UnknownNetwork(UsageError):
    """No network of that name."""


class UnknownEngine(UsageError):
    """No engine of that name."""


class ScenarioNotInCategory(UsageError):
    """The rules do not have that scenario for that network in that category."""


class ModelError(SeptetError):
    """Something is wrong with a model file."""


class ModelNotFound(ModelError):
    """The model file does not exist."""

    status = Status.NOT_FOUND


class ModelInvalid(ModelError):
    """The model file is corrupt, truncated, or not the network it should be."""


class NotSequences(ModelError):
    """The network cannot be given sequences at their own length; the text says why."""


class EngineError(SeptetError):
    """An engine cannot be loaded or cannot do what it is asked."""


class EngineUnavailable(EngineError):
    """The engine's package is not installed; the text says how to install it."""


class PrecisionUnsupported(EngineError):
    """The engine, the model file or this CPU cannot run at that precision."""


class TensorMismatch(EngineError):
    """An input has a wrong name, dtype or shape."""

    status = Status.INVALID_ARG


class InferenceFailed(EngineError):
    """The engine raised while it was running the network."""


class EngineClosed(EngineError):
    """The engine was used after ``close``."""


class OptimizeError(SeptetError):
    """A network could not be optimised."""


class CandidateImpossible(OptimizeError):
    """That file cannot be made of this network; the search goes on without it."""


class SearchElsewhere(OptimizeError):
    """The folder holds the search of another network, or of other terms, or another process is searching in it."""


class NotOptimized(OptimizeError):
    """There is no optimised form of that network here; the text says how to make one."""


class DataError(SeptetError):
    """A sample, a label or a data folder is missing or unreadable; the text names the file."""


class FetchError(SeptetError):
    """A download did not succeed."""


class Unreachable(FetchError):
    """The address did not answer, or answered with an error."""


class ChecksumMismatch(FetchError):
    """The downloaded bytes are not the published file."""


class ResultsError(SeptetError):
    """A results file or folder cannot be used."""


class ResultsUnreadable(ResultsError):
    """The file is missing, is not JSON, or does not follow the schema."""


class ResultsNewer(ResultsError):
    """The file follows a newer schema than this Septet knows."""


class ResultsExist(ResultsError):
    """The folder holds, or is about to hold, the results of another run."""


class ResultsNotWritten(ResultsError):
    """The results could not be written; whatever stood there before is untouched."""


class RunError(SeptetError):
    """A benchmark run did not finish."""


class RunCrashed(RunError):
    """The process that runs one LoadGen test died or failed."""


class NoValidResult(RunError):
    """No setting at all gives a valid result for that scenario on this machine."""


class ServingError(SeptetError):
    """A server does not do what a request asks."""


class RequestInvalid(ServingError):
    """The request is malformed, or does not fit the model that it names."""

    status = Status.INVALID_ARG


class RegionInvalid(RequestInvalid):
    """A shared-memory region cannot be registered, or is asked for bytes that it does not have."""


class TooLarge(ServingError):
    """The request, or what it unpacks to, is larger than the server's limit."""

    status = Status.TOO_LARGE


class Overloaded(ServingError):
    """The server holds as much for its clients as it may; the same request may succeed a moment later."""

    status = Status.OVERLOADED


class Unsupported(ServingError):
    """The request is understood, and this server or model does not do such a thing."""

    status = Status.UNSUPPORTED


class Forbidden(ServingError):
    """This server does not let that be done from outside."""

    status = Status.FORBIDDEN


class ServiceUnknown(ServingError):
    """The server is asked for the health of a service that it does not have."""

    status = Status.NOT_FOUND


class ModelUnknown(ServingError):
    """No repository has a model of that name."""

    status = Status.NOT_FOUND


class VersionUnknown(ServingError):
    """The model has no such version, or it is not served."""

    status = Status.NOT_FOUND


class RegionUnknown(ServingError):
    """No shared-memory region is registered under that name."""

    status = Status.NOT_FOUND


class RegionExists(ServingError):
    """A shared-memory region is registered under that name already."""

    status = Status.ALREADY_EXISTS


class ConfigInvalid(ServingError):
    """A model's configuration breaks a rule; the text names file, line and field where they are known."""

    status = Status.INVALID_ARG


class LoadFailed(ServingError):
    """The model could not be loaded; what was served before is still served."""


class ModelNotReady(ServingError):
    """The model is known, but not ready to answer."""

    status = Status.UNAVAILABLE


class ControlDisabled(ServingError):
    """This server does not load and unload models by request."""

    status = Status.UNAVAILABLE


class Stopping(ServingError):
    """The server or the model is about to end and takes nothing new."""

    status = Status.UNAVAILABLE


class Refused(ServingError):
    """A server did not do what a client asked; the text is the server's, and so is the `status`."""

    def __init__(self, text: str, status: Status) -> None:
        super().__init__(text)
        self.status = status


class PortUnavailable(ServingError):
    """The server cannot listen where it should: the port is taken, or the address is not this machine's."""


class QueueFull(ServingError):
    """The model's queue holds as many requests as it may."""

    status = Status.UNAVAILABLE


class RequestTimedOut(ServingError):
    """The request waited in the queue for longer than its timeout, and was not run."""

    status = Status.UNAVAILABLE


class DeadlineExceeded(ServingError):
    """The client's deadline passed before the request was run."""

    status = Status.DEADLINE


class RequestCancelled(ServingError):
    """The client does not wait any more, and the request was not run."""

    status = Status.CANCELLED


class ModelFailed(ServingError):
    """A Python model answered with an error of its own, which has a `status` of its own."""

    def __init__(self, text: str, status: Status = Status.INTERNAL) -> None:
        super().__init__(text)
        self.status = status


class InstanceCrashed(ServingError):
    """The process that ran the request died or hung; another takes its place."""
