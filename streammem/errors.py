"""Every error that streammem raises on purpose.

    StreammemError
    ├── InputError                  the caller can mend it; exit code 2
    │   ├── SourceError             a video, folder or camera can't be opened or read
    │   │   ├── SourceNotFound      nothing is there
    │   │   └── NoVideoStream       it opens, but has no pictures (an audio file, say)
    │   ├── QueryError              a question or search that can't be asked
    │   ├── TimeSyntaxError         a time that isn't understood
    │   ├── ConfigError             a configuration file, variable or flag
    │   ├── ObservationError        an observation that fails its checks; nothing of it is kept
    │   ├── SpaceMismatch           vectors of another embedding space than the memory's
    │   ├── AnnotationError         a benchmark's annotation file that is missing or isn't what was published
    │   ├── KeyFileError            a key or the list of clients: missing, damaged, readable by others
    │   └── InsecureAddress         an address that others can reach, without keys
    ├── AccessDenied                a key that may not do this; the same words whether the thing exists or not
    ├── ModelUnavailable            weights that are missing or differ from the expected hash
    ├── BudgetSpent                 what was allowed for calls, tokens or seconds is used up
    ├── ServiceError                a memory service and the way to it
    │   ├── ServiceUnreachable      nobody answers at that address; exit code 3
    │   ├── DeadlineExceeded        it is there, and didn't answer in time; exit code 3
    │   ├── ServiceBusy             it has too much to do now; trying again later works
    │   └── ProtocolError           a message that the other side refused
    └── StorageError
        ├── MemoryNotFound          no memory in that directory
        ├── MemoryLocked            another process writes to it; the message names its pid
        ├── MemoryClosed            used after close()
        ├── CorruptData             a checksum failed; the message names file and offset
        ├── StorageFull             no space left or over budget; nothing acknowledged is lost
        └── FormatVersion           written by a newer release

A message says *what* happened, *where*, and in ``hint`` *what to do next*. ``str(error)`` is one line.
"""

from __future__ import annotations


class StreammemError(Exception):
    """Base of the tree. ``hint`` is the next action, or an empty string."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.message} ({self.hint})" if self.hint else self.message
        return " ".join(text.split())


class InputError(StreammemError, ValueError):
    """The caller can mend it."""


class SourceError(InputError):
    """A source can't be opened or read."""


class SourceNotFound(SourceError):
    """Nothing is at that path or address."""


class NoVideoStream(SourceError):
    """The file opens but holds no pictures."""


class QueryError(InputError):
    """A question or a search that can't be asked."""


class TimeSyntaxError(InputError):
    """A time that isn't understood."""


class ConfigError(InputError):
    """A configuration file, an environment variable or a flag is wrong."""


class ObservationError(InputError):
    """An observation failed its checks. Nothing of it is kept. ``field`` names the first field that failed."""

    def __init__(self, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class SpaceMismatch(InputError):
    """A vector or a query belongs to another embedding space than the memory's."""


class AnnotationError(InputError):
    """A benchmark's annotation file is missing or isn't what was published."""


class KeyFileError(InputError):
    """A key file or the list of clients can't be used: missing, damaged, or readable by others."""


class InsecureAddress(InputError):
    """An address that other machines can reach was asked for without keys."""


class AccessDenied(StreammemError):
    """The key may not do this. The text is the same whether what was asked for exists or not."""


class ModelUnavailable(StreammemError):
    """Weights are missing here, or differ from the expected hash."""


class BudgetSpent(StreammemError):
    """What was allowed for calls, tokens or seconds is used up."""


class ServiceError(StreammemError):
    """A memory service, or the way to it."""


class ServiceUnreachable(ServiceError):
    """Nobody answers at that address."""

    exit_code = 3


class DeadlineExceeded(ServiceError):
    """The service is there and didn't answer in time. Whether it did it is unknown; asking again is safe."""

    exit_code = 3


class ServiceBusy(ServiceError):
    """The service has too much to do now."""

    exit_code = 3


class ProtocolError(ServiceError):
    """A message that the other side refused: another version, or a defect."""


class StorageError(StreammemError):
    """The memory's files."""


class MemoryNotFound(StorageError):
    """No memory in that directory."""


class MemoryLocked(StorageError):
    """Another process writes to this memory."""

    def __init__(self, message: str, *, pid: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


class MemoryClosed(StorageError):
    """The memory was used after ``close()``."""


class CorruptData(StorageError):
    """A checksum failed."""

    def __init__(self, message: str, *, path: str = "", offset: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.offset = offset


class StorageFull(StorageError):
    """No space left on the device, or the budget is exhausted. What was acknowledged is kept."""


class FormatVersion(StorageError):
    """The files were written by a newer release."""
