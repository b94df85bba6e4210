"""Whatever ends a request, as an error of the management API."""

from management.errors import InternalError, ManagementError, RequestError, StorageError
from storage.errors import StorageUnavailable

_STORAGE_RETRY_SECONDS = 5.0


def refusal_of(status: int, cause: BaseException | None, request_id: str) -> ManagementError:
    """What is answered where ``cause`` was raised, or Tornado has chosen the ``status`` by itself."""
    if isinstance(cause, ManagementError):
        return cause
    if isinstance(cause, StorageUnavailable):
        return ManagementError(
            StorageError.UNAVAILABLE,
            f"The database does not answer: {cause} Nothing was changed; try again.",
            retry_after_seconds=_STORAGE_RETRY_SECONDS,
        )
    if 400 <= status < 500:
        # Tornado's own: a path that is no UTF-8, say.
        return ManagementError(RequestError.MALFORMED, "The request cannot be understood.")
    return ManagementError(InternalError.UNEXPECTED, f"The gateway failed; its log says how, under {request_id}.")
