"""The address that a browser is sent to at the end of a sign-in, also as a person has copied it."""

from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, urlsplit

import msgspec

from credentials.errors import LoginMismatch

CALLBACK_PATH = "/oauth/callback"
"""Where people come back to, below `server.public_url`, unless an entry names another place."""
MOST_CHARACTERS = 8192
_MOST_PARAMETERS = 32
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Answer(msgspec.Struct, frozen=True):
    """Taken apart."""

    url: SplitResult
    query: Mapping[str, str]

    def require_of(self, redirect_url: str) -> None:
        """
        Raises:
            LoginMismatch: it does not lead to ``redirect_url``, so it is no answer to who asked for that.
        """
        if _place(self.url) != _place(urlsplit(redirect_url)):
            raise LoginMismatch(f"The address is not one below {redirect_url}, where this sign-in ends: copy it whole.")

    def __repr__(self) -> str:
        return "Answer(…)"


def answer_in(pasted: str) -> Answer:
    """
    Raises:
        LoginMismatch: it is no address, or none that a sign-in ends with.
    """
    text = pasted.strip().strip("'\"<>")
    try:
        url = urlsplit(text) if len(text) <= MOST_CHARACTERS and text.isprintable() else None
        fits = url is not None and url.scheme in _DEFAULT_PORTS and bool(url.hostname) and url.port != 0
    except ValueError:
        url, fits = None, False
    if url is None or not fits or url.username is not None or url.password is not None:
        raise LoginMismatch("This is no address that a sign-in ends with: copy all of the browser's address line.")
    query = query_in(url.query)
    if query is None:
        raise LoginMismatch("The query of the address cannot be read: copy all of the browser's address line.")
    return Answer(url, query)


def query_in(query: str) -> Mapping[str, str] | None:
    """The parameters of an answer; None: none that RFC 6749 allows, as one is there twice (section 3.1) or is no UTF-8."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError:
        return None
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


def _place(url: SplitResult) -> tuple[str, str, int | None, str]:
    """Where it leads, but for the query, of which a part is the server's."""
    return url.scheme, (url.hostname or "").rstrip("."), url.port or _DEFAULT_PORTS.get(url.scheme), url.path or "/"
