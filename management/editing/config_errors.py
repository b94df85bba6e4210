"""What edits of the configuration end with, as answers: the one map, for all handlers that edit it."""

from collections.abc import Iterator
from contextlib import contextmanager

from config.edit.errors import (
    DocumentBusy,
    EditRefused,
    EntryExists,
    EntryMissing,
    ReadOnlyDocument,
    Stale,
    Unreadable,
    WriteFailed,
)
from config.faults import ConfigFaults, render_path
from management.editing.editor import ConfirmationPending, NothingPending
from management.errors import ConfigError, ManagementCode, ManagementError, ProviderError, RequestError
from management.secrets.compared import GuardRefused
from management.secrets.entry_values import BodyFaults, CannotSeal, NothingToKeep

GUARD_CODES: tuple[ManagementCode, ...] = (
    ConfigError.REFERENCE_NOT_ALLOWED,
    ConfigError.FILE_ONLY,
    ConfigError.SECRET_REQUIRED,
    ProviderError.SECRET_REQUIRED,
    ProviderError.COMMAND_IN_FILE_ONLY,
)
WRITE_CODES: tuple[ManagementCode, ...] = (
    ConfigError.READ_ONLY,
    ConfigError.BUSY,
    ConfigError.WRITE_FAILED,
)
COMMIT_CODES: tuple[ManagementCode, ...] = (
    ConfigError.STALE,
    ConfigError.UNREADABLE,
    ConfigError.EDIT_REFUSED,
    ConfigError.INVALID,
    *GUARD_CODES,
    *WRITE_CODES,
    ConfigError.CONFIRMATION_PENDING,
)
"""What :meth:`management.editing.editor.Editor.commit` may end with, for the `errors` of an operation. Besides: where entries
are named, `ENTRY_MISSING` and `ENTRY_EXISTS`."""

SECRET_CODES: tuple[ManagementCode, ...] = (ConfigError.NOTHING_TO_KEEP, ConfigError.CANNOT_SEAL)
"""Besides, where the body has secrets as :mod:`management.secrets.entry_values` takes them."""

_BUSY_RETRY_SECONDS = 1.0
_NOTHING_CHANGED = "Nothing was changed."


@contextmanager
def edit_errors() -> Iterator[None]:
    """
    Raises:
        ManagementError: for whatever :class:`management.editing.editor.Editor` raises inside, and what makes edits for it.
    """
    try:
        yield
    except Stale as error:
        # Without a revision some file cannot be read now, and there is nothing to send as `If-Match`.
        raise ManagementError(ConfigError.STALE, _sentence(error), etag=error.present) from error
    except Unreadable as error:
        raise ManagementError(
            ConfigError.UNREADABLE,
            "A file of the configuration cannot be read, and so is not edited: mend it where it lies.",
            faults=error.faults,
        ) from error
    except EntryMissing as error:
        raise _of_entry(ConfigError.ENTRY_MISSING, error) from error
    except EntryExists as error:
        raise _of_entry(ConfigError.ENTRY_EXISTS, error) from error
    except EditRefused as error:
        raise ManagementError(
            ConfigError.EDIT_REFUSED,
            f"The edit cannot be made in this document. {_NOTHING_CHANGED}",
            faults=error.faults,
        ) from error
    except ConfigFaults as error:
        raise ManagementError(
            ConfigError.INVALID,
            f"The configuration would have {len(error.faults)} fault(s). {_NOTHING_CHANGED}",
            faults=error.faults,
        ) from error
    except GuardRefused as error:
        raise ManagementError(
            error.code, f"The API may not make this edit. {_NOTHING_CHANGED}", faults=error.faults
        ) from error
    except ReadOnlyDocument as error:
        raise ManagementError(ConfigError.READ_ONLY, _sentence(error)) from error
    except DocumentBusy as error:
        raise ManagementError(ConfigError.BUSY, _sentence(error), retry_after_seconds=_BUSY_RETRY_SECONDS) from error
    except WriteFailed as error:
        raise ManagementError(ConfigError.WRITE_FAILED, _sentence(error)) from error
    except ConfirmationPending as error:
        raise ManagementError(ConfigError.CONFIRMATION_PENDING, _sentence(error)) from error
    except NothingPending as error:
        raise ManagementError(ConfigError.NOTHING_PENDING, _sentence(error)) from error
    except NothingToKeep as error:
        raise _of_body(ConfigError.NOTHING_TO_KEEP, error) from None
    except BodyFaults as error:
        raise _of_body(RequestError.INVALID_BODY, error) from None
    except CannotSeal as error:
        raise ManagementError(ConfigError.CANNOT_SEAL, f"The secret is not kept: {error}.") from error


def _of_body(code: ManagementCode, error: BodyFaults) -> ManagementError:
    first = error.faults[0]
    path = render_path(first.path)
    return ManagementError(code, f"`{path}`: {_ended(first.message)}", param=path, faults=error.faults)


def _of_entry(code: ManagementCode, error: EditRefused) -> ManagementError:
    fault = error.faults[0]
    return ManagementError(code, _sentence(fault.message), param=render_path(fault.path) or None)


def _sentence(said: Exception | str) -> str:
    text = str(said)
    # A path stays as it is written.
    start = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]
    return _ended(f"{start}{text[1:]}")


def _ended(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."
