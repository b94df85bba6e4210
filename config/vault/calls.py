"""Calls to Vault by hvac: bounded in time, and what goes wrong told in our words. session.py says what is called.

hvac speaks through requests, whose timeouts count from one piece of an answer to the next, for one of a name's
addresses after the other, and not while the name is looked up. So each call runs in a thread of its own that is given
up when its time is over; such a thread ends by itself when its connection does.
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
from requests.adapters import HTTPAdapter

from config.vault.answers import Answer, Asked, Limit
from config.vault.errors import VaultDenied, VaultFault, VaultMissing, VaultUnavailable, VaultUnusable
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
        self._connections = _Connections(settings)
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

        def run() -> None:
            try:
                outcome.set_result(self._outcome(asked, call))
            finally:
                self._free.release()

        seconds = limit.left
        if seconds <= 0 or not self._free.acquire(blocking=False):
            raise self._slow()
        used_at, self._used_at = self._used_at, self._clock.monotonic()
        if self._used_at - used_at > _IDLE_SECONDS:
            self._connections.close()
        threading.Thread(target=run, name="vault call", daemon=True).start()
        try:
            result = outcome.result(seconds)
        except TimeoutError:
            raise self._slow() from None
        # Raised here, not there: it takes along no frames in which there are tokens.
        if isinstance(result, VaultFault):
            raise result
        return result

    def close(self) -> None:
        """Close the connections that no call uses; the others close when their calls end."""
        self._connections.close()

    def _outcome(self, asked: Asked, call: Callable[[], Any]) -> Answer | VaultFault:
        try:
            answer = call()
            if isinstance(answer, requests.Response):
                # Done (204), or begun (202): there is nothing to tell.
                return Answer() if answer.ok and not answer.content else self._refusal(asked, answer)
            return msgspec.convert(answer, Answer)
        except msgspec.ValidationError:
            return self._not_vault()
        except Exception as error:  # whatever it is, its text may quote the token
            return self._failure(error)

    def _refusal(self, asked: Asked, response: requests.Response) -> VaultFault:
        server = self._settings.server
        body = _body(response)
        match response.status_code:
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
            case 503 if any("sealed" in error for error in body.errors):
                return VaultUnavailable(f"Vault at {server} is sealed: unseal it", "sealed")
            case status if status >= 400:
                return VaultUnavailable(f"Vault at {server} fails ({status}): see its log")
        return self._not_vault()

    def _failure(self, error: Exception) -> VaultFault:
        server = self._settings.server
        if isinstance(error, requests.exceptions.SSLError):
            return VaultUnavailable(
                f"Vault at {server} cannot be reached by TLS ({_tls_fault(error)}): see `secrets.vault.tls`",
                "unreachable",
            )
        if isinstance(error, requests.ReadTimeout) or _stopped_midway(error):
            return self._slow()
        if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
            return VaultUnavailable(
                f"Vault at {server} cannot be reached ({_socket_fault(error)}): "
                "see that it runs and that `secrets.vault.address` is right",
                "unreachable",
            )
        if isinstance(error, requests.TooManyRedirects):
            return VaultUnavailable(f"Vault at {server} redirects to where it is not: mend `secrets.vault.address`")
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            # requests looks for the files of `tls` at each connection.
            return VaultUnavailable(
                f"Vault at {server} cannot be reached: a file of `secrets.vault.tls` cannot be read", "unreachable"
            )
        return VaultUnavailable(f"Vault at {server} cannot be asked ({type(error).__name__})")

    def _slow(self) -> VaultFault:
        return VaultUnavailable(
            f"Vault at {self._settings.server} does not answer in time: "
            "see how it does, or raise `secrets.vault.timeout_seconds`",
            "slow",
        )

    def _not_vault(self) -> VaultFault:
        return VaultUnavailable(
            f"{self._settings.server} answers, but not as Vault does: see that `secrets.vault.address` is right"
        )


class _Connections(requests.Session):
    def __init__(self, settings: VaultSettings) -> None:
        super().__init__()
        self.timeout_seconds = settings.config.timeout_seconds
        self.trust_env = False
        # One, as Vault's own client: a standby node may name the active one.
        self.max_redirects = 1
        tls = settings.config.tls
        self._authorities = str(settings.path(tls.ca)) if tls.ca is not None else _system_authorities()
        certificate = [str(settings.path(name)) for name in (tls.cert, tls.key) if name is not None]
        self._certificate = (certificate[0], certificate[-1]) if certificate else None
        # As many as there may be calls: more than fit would be thrown away, with a warning.
        for scheme in ("http://", "https://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=_MOST_AT_ONCE))

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        # Here, as hvac puts what it finds in the environment in the place of what is None.
        ours: dict[str, Any] = {
            "timeout": self.timeout_seconds,
            "verify": self._authorities,
            "cert": self._certificate,
            "proxies": {},
        }
        return super().send(request, **kwargs | ours)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None and (resp.url or "").startswith("https:") and target.startswith("http:"):
            raise requests.TooManyRedirects("the token would be sent in the clear")
        return target


class _Body(msgspec.Struct):
    errors: list[str] = []
    warnings: list[str] | None = None
    data: dict[str, Any] | None = None


def _body(response: requests.Response) -> _Body:
    """What says why; nothing where the answer is not Vault's own."""
    try:
        return msgspec.json.decode(response.content, type=_Body)
    except msgspec.MsgspecError:
        return _Body()


def _what_is_missing(path: str, body: _Body) -> str:
    metadata = (body.data or {}).get("metadata")
    if isinstance(metadata, dict):
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


def _stopped_midway(error: Exception) -> bool:
    # requests takes a timeout within the body for a broken connection.
    return (
        isinstance(error, requests.ConnectionError)
        and bool(error.args)
        and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError)
    )


def _system_authorities() -> str | bool:
    """Where OpenSSL finds them, as for all other connections; True: requests' own, where it finds none."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True
