"""Calls to Vault by hvac: bounded in time, and what goes wrong told in our words. session.py says what is called.

hvac speaks through requests, whose timeouts count from one piece of an answer to the next, for one of a name's
addresses after the other, and not while the name is looked up. So each call runs in a thread of its own that is given
up when its time is over: its connection is cut, and the thread ends with it.
"""

import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import hvac
import msgspec
import requests
import urllib3

from config.checks import check_bare_url
from config.vault.answers import Answer, Asked, Limit
from config.vault.connections import Connections, UnlikeVault, Wire
from config.vault.errors import (
    VaultDenied,
    VaultFault,
    VaultMissing,
    VaultUnavailable,
    VaultUnusable,
    not_vault,
)
from config.vault.settings import VaultSettings
from core.clock import Clock

_MOST_AT_ONCE = 32
"""Calls, with those that were given up and have not ended."""
_IDLE_SECONDS = 30.0
"""Connections that were not used for longer are not used again: what stands between may have forgotten them."""


class Calls:
    """Calls of one server. Methods may be called from any thread."""

    def __init__(self, settings: VaultSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._connections = Connections(settings, _MOST_AT_ONCE)
        self._used_at = clock.monotonic()
        self._free = threading.Semaphore(_MOST_AT_ONCE)

    def retune(self, settings: VaultSettings) -> None:
        """Take the timeout of ``settings``."""
        self._settings = settings
        self._connections.timeout_seconds = settings.config.timeout_seconds

    def client(self, token: str) -> hvac.Client:
        """A client that presents ``token`` (may be empty). All of them share connections.

        Nothing comes from the environment, where hvac and requests would look for an address, a token, certificates
        and proxies.
        """
        config = self._settings.config
        return hvac.Client(
            url=config.address,
            token=token,
            session=self._connections,
            namespace=config.namespace,
            # Answers instead of hvac's exceptions, which do not tell the status.
            ignore_exceptions=True,
        )

    def __call__(self, asked: Asked, limit: Limit, call: Callable[[], Any]) -> Answer:
        """What ``call``, a method of a :meth:`client`, gives.

        Raises:
            VaultFault: what became of it instead.
        """
        outcome: Future[Answer | VaultFault] = Future()
        wire = Wire()

        def run() -> None:
            wire.carry()
            try:
                result = self._outcome(asked, call)
            except BaseException as error:  # a fault of ours: nobody must wait for what does not come
                result = self._unasked(type(error).__name__)
            self._free.release()
            outcome.set_result(result)

        self._check_address()
        seconds = limit.left
        if seconds <= 0 or not self._free.acquire(blocking=False):
            raise self._slow()
        used_at, self._used_at = self._used_at, self._clock.monotonic()
        if self._used_at - used_at > _IDLE_SECONDS:
            self._connections.close()
        try:
            threading.Thread(target=run, name="vault call", daemon=True).start()
        except RuntimeError:
            self._free.release()
            raise self._unasked("the system gives no thread") from None
        try:
            result = outcome.result(seconds)
        except TimeoutError:
            wire.cut()
            raise self._slow() from None
        # Raised here, not there: it takes along no frames in which there are tokens.
        if isinstance(result, VaultFault):
            raise result
        return result

    def close(self) -> None:
        """Close the connections that no call uses; the others close when their calls end."""
        self._connections.close()

    def _check_address(self) -> None:
        # A document's references are resolved before its faults are told.
        try:
            check_bare_url(self._settings.config.address)
        except ValueError as error:
            raise VaultUnavailable(f"`secrets.vault.address`: {error}") from None

    def _outcome(self, asked: Asked, call: Callable[[], Any]) -> Answer | VaultFault:
        try:
            answer = call()
            if isinstance(answer, requests.Response):
                # Done (204), or begun (202): there is nothing to tell.
                is_done = answer.status_code in (200, 202, 204) and not answer.content
                return Answer() if is_done else self._refusal(asked, answer)
            return msgspec.convert(answer, Answer)
        except msgspec.ValidationError:
            return not_vault(self._settings.server)
        except Exception as error:  # whatever it is, its text may quote the token
            return self._failure(error)

    def _refusal(self, asked: Asked, response: requests.Response) -> VaultFault:
        server = self._settings.server
        body = _body(response)
        match response.status_code:
            case 400 | 403 | 404 | 405 if not body.is_vaults:
                return not_vault(server)
            case 403:
                return VaultDenied(asked.path, asked.capability)
            case 404:
                return VaultMissing(_what_is_missing(asked.path, body))
            case 400 | 405 as status:
                return VaultUnusable(
                    f"Vault rejects what is asked of `{asked.path}` ({status}): see that this path is meant"
                )
            case 429:
                return VaultUnavailable(
                    f"Vault at {server} is asked too often (429): raise its quota or `secrets.vault.cache_seconds`",
                    "rate_limited",
                )
            case 503 if any("sealed" in error for error in body.errors or ()):
                return VaultUnavailable(f"Vault at {server} is sealed: unseal it", "sealed")
            case status if status >= 400:
                return VaultUnavailable(f"Vault at {server} fails ({status}): see its log")
        return not_vault(server)

    def _failure(self, error: Exception) -> VaultFault:
        server = self._settings.server
        if isinstance(error, UnlikeVault):
            return not_vault(server)
        if isinstance(error, requests.exceptions.SSLError):
            return VaultUnavailable(
                f"Vault at {server} cannot be reached by TLS ({_tls_fault(error)}): see `secrets.vault.tls`",
                "unreachable",
            )
        if isinstance(error, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError):
            return self._slow()
        # urllib3's own: an answer that broke off.
        if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError):
            return VaultUnavailable(
                f"Vault at {server} cannot be reached ({_socket_fault(error)}): "
                "see that it runs and that `secrets.vault.address` is right",
                "unreachable",
            )
        if isinstance(error, requests.TooManyRedirects):
            return VaultUnavailable(
                f"Vault at {server} redirects to where no token is sent: mend `secrets.vault.address`"
            )
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            # requests looks for the files of `tls` at each connection.
            return VaultUnavailable(
                f"Vault at {server} cannot be reached: a file of `secrets.vault.tls` cannot be read", "unreachable"
            )
        return self._unasked(type(error).__name__)

    def _slow(self) -> VaultFault:
        return VaultUnavailable(
            f"Vault at {self._settings.server} does not answer in time: "
            "see how it does, or raise `secrets.vault.timeout_seconds`",
            "slow",
        )

    def _unasked(self, why: str) -> VaultFault:
        return VaultUnavailable(f"Vault at {self._settings.server} cannot be asked ({why})")


class _Body(msgspec.Struct):
    errors: list[str] | None = None
    warnings: list[str] | None = None
    data: dict[str, Any] | None = None

    @property
    def metadata(self) -> dict[str, Any] | None:
        """Of a version of KV 2 that has been deleted."""
        metadata = (self.data or {}).get("metadata")
        return metadata if isinstance(metadata, dict) else None

    @property
    def is_vaults(self) -> bool:
        """Whether Vault has written it: it says why, or what there was."""
        return any(each is not None for each in (self.errors, self.warnings, self.metadata))


def _body(response: requests.Response) -> _Body:
    """What says why; nothing where the answer is not Vault's own."""
    try:
        return msgspec.json.decode(response.content, type=_Body)
    except msgspec.MsgspecError:
        return _Body()


def _what_is_missing(path: str, body: _Body) -> str:
    metadata = body.metadata
    if metadata is not None:
        what = "destroyed" if metadata.get("destroyed") else "deleted"
        return f"version {metadata.get('version')} of `{path}` in Vault has been {what}: write it again"
    if any("versioned" in warning for warning in body.warnings or ()):
        return f"`{path}` is in a store of KV version 2: set `kv` in `secrets.vault` to 2 or auto"
    return f"Vault has nothing at `{path}`: write it there, or mend the path"


def _tls_fault(error: BaseException) -> str:
    """The reason of OpenSSL, which quotes nothing that was sent."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, ssl.SSLError) and cause.reason:
            return cause.reason.lower().replace("_", " ")
    return "the handshake failed"


def _socket_fault(error: BaseException) -> str:
    """The reason of the system, such as `Connection refused`."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, requests.RequestException):
            return cause.strerror
    return "no connection within the timeout" if isinstance(error, requests.ConnectTimeout) else "the connection broke"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What requests and urllib3 have wrapped, each in its own way."""
    seen: list[BaseException] = [error]
    for each in seen:
        yield each
        inner = (getattr(each, "reason", None), each.__cause__, each.__context__, *each.args)
        seen += [one for one in inner if isinstance(one, BaseException) and one not in seen]
