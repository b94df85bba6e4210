"""Finding the token that a path names."""

from access.issuing import may_manage
from access.tokens import FILE_PREFIX
from config.schema import Token
from management.errors import ManagementError, TokenError
from management.handler.base import ManagementHandler
from management.token_service import TokenService
from storage.records import StoredToken

_MAX_ID_CHARACTERS = 64


async def stored(handler: ManagementHandler, token_id: str) -> StoredToken:
    """One of the database that the caller may see to; of others they do not learn that there are.

    Raises:
        ManagementError: 404.
    """
    # What no id can be is not put to a database, which may not even be able to compare it.
    is_id = 0 < len(token_id) <= _MAX_ID_CHARACTERS and token_id.isascii() and token_id.isprintable()
    found = await handler.dependencies.tokens.get(token_id) if is_id else None
    if found is None or not may_manage(handler.caller, found.owner):
        raise not_found(token_id)
    return found


def declared(service: TokenService, token_id: str) -> Token | None:
    """One of the file; None where the id is of none of them.

    Raises:
        ManagementError: 404: the id is as of the file's, and there is none.
    """
    if not token_id.startswith(FILE_PREFIX):
        return None
    name = token_id.removeprefix(FILE_PREFIX)
    found = next((each for each in service.declared() if each.name == name), None)
    if found is None:
        raise not_found(token_id)
    return found


def not_found(token_id: str) -> ManagementError:
    return ManagementError(TokenError.NOT_FOUND, f"There is no token `{token_id[:64]}`, or it is no longer living.")
