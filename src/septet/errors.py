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
    │   └── ModelInvalid
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
    └── RunError                a benchmark run that did not finish
        ├── RunCrashed
        └── NoValidResult

The command line prints one as a single line and exits with its ``exit_code``.
"""

from __future__ import annotations


class SeptetError(Exception):
    """Base of all errors that Septet raises on purpose; its text is one line meant for a person."""

    exit_code = 1


class UsageError(SeptetError):
    """The command or call asks for something that does not exist or does not fit together."""

    exit_code = 2


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


class ModelInvalid(ModelError):
    """The model file is corrupt, truncated, or not the network it should be."""


class EngineError(SeptetError):
    """An engine cannot be loaded or cannot do what it is asked."""


class EngineUnavailable(EngineError):
    """The engine's package is not installed; the text says how to install it."""


class PrecisionUnsupported(EngineError):
    """The engine, the model file or this CPU cannot run at that precision."""


class TensorMismatch(EngineError):
    """An input has a wrong name, dtype or shape."""


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
