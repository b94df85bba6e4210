"""A Vault server for tests: real HTTP on a real socket, in a thread of its own; the test says what befalls it.

    with vault_stand_in() as vault:
        vault.put("secret/llm/openai", api_key="…")             # key-value 2 is at `secret`, 1 at `kv`
        login = vault.approle(vault.policy({"secret/data/llm/*": ["read"]}))
        …
        vault.seal()

As in Vault, tokens and leases end by its clock, which :meth:`VaultStandIn.advance` puts forward; the leases of a token
end with it; and no policy but the one that the test gives lets a token read a secret.
"""

import itertools
import secrets
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.planted import planted
from tests.vault_api import HEALTH, VaultApi
from tests.vault_engines import put_version
from tests.vault_http import HANG_UP, Seen, Server
from tests.vault_messages import Answer, Request, errors
from tests.vault_state import CredentialsRole, Lease, Login, LoginRole, Rules, Token, mounted_at


@dataclass(eq=False)
class _Failure:
    answer: Answer
    path: str
    left: float


class VaultStandIn:
    """A running server; see the module. Methods may be called from any thread while it serves."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._advanced = 0.0
        self._stands_at: float | None = None
        self.api = VaultApi(lambda: (time.time() if self._stands_at is None else self._stands_at) + self._advanced)
        self.port = 0
        self.requests: list[Seen] = []
        """What was asked, in the order of the answers."""
        self.waiting = 0
        """Requests that have come and are not answered yet, about."""
        self._tls = tls
        self._server: Server | None = None
        self._held_port: socket.socket | None = None
        self._failures: list[_Failure] = []
        self._delays: dict[str, float] = {}
        self._trickle = 0.0
        self._numbers = itertools.count(1)
        with self.api.lock:
            self.api.mount("secret", "kv-v2")
            self.api.mount("kv", "kv", {"version": "1"})
            self.api.mount("database", "database")
            self.api.mount("transit", "transit")

    @property
    def address(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def root_token(self) -> str:
        return self.api.root

    # The process

    def start(self) -> None:
        """Serve, on the same port as before."""
        assert self._server is None, "it serves already"
        try:
            self._server = Server(self, self.port, self._tls)
        finally:
            self.release_port()
        self.port = self._server.server_address[1]
        self._server.begin()

    def stop(self) -> None:
        """End, and all connections with it: from then on they are refused. What it knew it still knows at the next start.

        Raises:
            Exception: what went wrong in it while it served.
        """
        server, self._server = self._server, None
        if server is not None:
            server.end()
            # Bound and never listened on: connections are refused, and nobody else is given the port meanwhile.
            self._held_port = socket.socket()
            self._held_port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._held_port.bind(("127.0.0.1", self.port))
            if server.faults:
                raise server.faults[0]

    def release_port(self) -> None:
        """Give up the port that is held while it does not serve."""
        if self._held_port is not None:
            self._held_port.close()
            self._held_port = None

    # What it holds

    def namespace(self, path: str) -> str:
        """Make a namespace; in it are no mounts yet. Gives ``path``."""
        with self.api.lock:
            self.api.namespace(path)
        return path

    def mount(
        self, path: str, kind: str = "kv-v2", options: Mapping[str, str] | None = None, *, namespace: str = ""
    ) -> str:
        """Enable an engine (`kv`, `kv-v2`, `database`, `transit`) at ``path``; gives ``path``."""
        with self.api.lock:
            self.api.mount(path, kind, options, namespace)
        return path

    def put(self, path: str, /, *, namespace: str = "", **fields: Any) -> int:
        """Write a secret of key-value 1 or 2, ``path`` with its mount first; gives its version (0 of key-value 1)."""
        with self.api.lock:
            mount, rest = self._mounted(path, namespace)
            if mount.is_kv2:
                return put_version(mount, rest, dict(fields), self.api.now())
            mount.values[rest] = dict(fields)
            return 0

    def delete(self, path: str, version: int | None = None, *, destroy: bool = False, namespace: str = "") -> None:
        """Delete a secret: of key-value 2 one version, the last unless given, which may be destroyed instead."""
        with self.api.lock:
            mount, rest = self._mounted(path, namespace)
            if not mount.is_kv2:
                del mount.values[rest]
                return
            deleted = mount.versions[rest][(version or 0) - 1]
            deleted.deleted_at = self.api.now()
            if destroy:
                deleted.destroyed, deleted.data, deleted.deleted_at = True, None, None

    def credentials(
        self, path: str, ttl: float = 3600, max_ttl: float = 86400, *, renewable: bool = True, namespace: str = ""
    ) -> None:
        """A role of a database engine: reading ``path`` (`database/creds/app`) gives a user and a lease."""
        with self.api.lock:
            mount, rest = self._mounted(path, namespace)
            mount.credentials[rest.removeprefix("creds/")] = CredentialsRole(ttl, max_ttl, renewable)

    def policy(self, rules: Rules, name: str = "", *, namespace: str = "") -> str:
        """Write a policy, capabilities by path; gives its name."""
        name = name or f"policy-{next(self._numbers)}"
        with self.api.lock:
            written = {path: tuple(granted) for path, granted in rules.items()}
            self.api.namespace(namespace).policies[name] = written
        return name

    def token(
        self,
        *policies: str,
        ttl: float = 0,
        max_ttl: float = 0,
        period: float = 0,
        renewable: bool = True,
        namespace: str = "",
    ) -> str:
        """A token as `auth/token/create` gives it."""
        with self.api.lock:
            made = self.api.make_token(
                policies, ttl=ttl, max_ttl=max_ttl, period=period, renewable=renewable, namespace=namespace
            )
            return made.id

    def approle(
        self,
        *policies: str,
        ttl: float = 0,
        max_ttl: float = 0,
        period: float = 0,
        renewable: bool = True,
        uses: int = 0,
        mount: str = "approle",
        namespace: str = "",
    ) -> Login:
        """A role of AppRole authentication and a secret id for it, good for ``uses`` logins (0: for any number)."""
        role = LoginRole(f"role-{next(self._numbers)}", policies, ttl, max_ttl, period, renewable)
        with self.api.lock:
            self.api.login_role("approle", mount, role, namespace)
            role.secret_ids[secret_id := f"{planted('vault-secret-id')}_{secrets.token_urlsafe(18)}"] = uses
        return Login(mount, role.role_id, secret_id)

    def kubernetes(
        self,
        jwt: str,
        *policies: str,
        ttl: float = 0,
        max_ttl: float = 0,
        mount: str = "kubernetes",
        namespace: str = "",
    ) -> LoginRole:
        """A role of Kubernetes authentication that ``jwt`` may take."""
        role = LoginRole(f"role-{next(self._numbers)}", policies, ttl, max_ttl, jwts={jwt})
        with self.api.lock:
            return self.api.login_role("kubernetes", mount, role, namespace)

    def is_good(self, token: str) -> bool:
        """Whether a token is still accepted."""
        return any(each.id == token for each in self.tokens())

    def lease(self, username: str) -> Lease | None:
        """The lease of a user name that a database engine gave; None when it has ended."""
        with self.api.lock:
            self.api.end_what_is_over()
            return next((each for each in self.api.leases.values() if each.username == username), None)

    def leases(self) -> list[Lease]:
        """Those that run."""
        with self.api.lock:
            self.api.end_what_is_over()
            return list(self.api.leases.values())

    def tokens(self) -> list[Token]:
        """Those that are good, without the root token."""
        with self.api.lock:
            self.api.end_what_is_over()
            return [each for each in self.api.tokens.values() if not each.is_root]

    # What befalls it

    def advance(self, seconds: float) -> None:
        """Put its clock forward."""
        with self.api.lock:
            self._advanced += seconds

    def stand_still(self) -> None:
        """From now on its clock goes on by :meth:`advance` alone."""
        with self.api.lock:
            self._stands_at = time.time()

    def expire_token(self, token: str | None = None) -> None:
        """End a token and its leases, as its time or somebody's `revoke` does; None: all but the root token."""
        with self.api.lock:
            for each in list(self.api.tokens.values()):
                if each.id == token or (token is None and not each.is_root):
                    self.api.end_token(each)

    def revoke_lease(self, username: str) -> None:
        """End the lease of a user name, as an operator does."""
        lease = self.lease(username)
        with self.api.lock:
            if lease is not None:
                self.api.leases.pop(lease.id, None)

    def deny(self, *paths: str) -> None:
        """No policy grants ``paths`` (policy patterns, as seen from the root namespace) any more."""
        with self.api.lock:
            self.api.denied.update(paths)

    def allow(self, *paths: str) -> None:
        """The end of :meth:`deny`; without ``paths`` of all."""
        with self.api.lock:
            self.api.denied.difference_update(paths or tuple(self.api.denied))

    def seal(self) -> None:
        with self.api.lock:
            self.api.sealed = True

    def unseal(self) -> None:
        with self.api.lock:
            self.api.sealed = False

    def become(self, role: str) -> None:
        """What the node is in its cluster: a key of :data:`tests.vault_api.HEALTH`. A standby passes requests on."""
        assert role in HEALTH
        with self.api.lock:
            self.api.role = role

    def fail(self, status: int, *texts: str, times: float = float("inf"), path: str = "") -> None:
        """Answer the next ``times`` requests below ``path`` with ``status`` and ``errors``."""
        texts = texts or ("internal error",)
        with self.api.lock:
            self._failures.append(_Failure(errors(status, *texts), path, times))

    def limit_rate(self, *, times: float = float("inf"), path: str = "") -> None:
        """Answer as where a rate limit quota is exceeded."""
        with self.api.lock:
            text = f'request path "{path}": rate limit quota exceeded'
            answer = errors(429, text, headers={"Retry-After": "1", "X-Ratelimit-Remaining": "0"})
            self._failures.append(_Failure(answer, path, times))

    def garble(
        self,
        status: int = 200,
        *,
        times: float = float("inf"),
        path: str = "",
        body: str = "<html>Bad Gateway</html>",
    ) -> None:
        """Answer with ``body``, a text that need not be JSON, as something else than Vault does."""
        with self.api.lock:
            self._failures.append(_Failure(Answer(status, text=body), path, times))

    def hang_up(self, *, times: float = float("inf"), path: str = "") -> None:
        """Read a request and close the connection, as where a kept one is closed when the request is on its way."""
        with self.api.lock:
            self._failures.append(_Failure(HANG_UP, path, times))

    def redirect(self, address: str, *, path: str) -> None:
        """Send those who ask for ``path`` to the same path at ``address``, as a standby that passes nothing on does."""
        with self.api.lock:
            answer = Answer(307, headers={"Location": f"{address}/v1/{path}"})
            self._failures.append(_Failure(answer, path, float("inf")))

    def recover(self) -> None:
        """The end of all that makes answers wrong, slow or late."""
        with self.api.lock:
            self._failures.clear()
            self._delays.clear()
            self._trickle = 0.0

    def slow(self, seconds: float, path: str = "") -> None:
        """Wait so long before each answer (below ``path``); an infinite number: until :meth:`recover`."""
        with self.api.lock:
            self._delays[path] = seconds

    def trickle(self, seconds: float) -> None:
        """Send each answer byte by byte, so long apart: it never times out by silence."""
        with self.api.lock:
            self._trickle = seconds

    # What was asked of it

    def asked(self, path: str) -> list[Seen]:
        """The requests of a path (with a `*` at its end: below it)."""
        exact = not path.endswith("*")
        return [
            each
            for each in tuple(self.requests)
            if (each.path == path if exact else each.path.startswith(path.removesuffix("*")))
        ]

    def forget(self) -> None:
        """Empty :attr:`requests`."""
        self.requests.clear()

    # For the connections

    def answer(self, request: Request) -> Answer:
        with self.api.lock:
            for failure in self._failures:
                if failure.left > 0 and request.path.startswith(failure.path):
                    failure.left -= 1
                    return failure.answer
        return self.api.answer(request)

    def delay(self, path: str) -> float:
        with self.api.lock:
            return max((wait for below, wait in self._delays.items() if path.startswith(below)), default=0.0)

    @property
    def pause(self) -> float:
        """Between two bytes of an answer."""
        with self.api.lock:
            return self._trickle

    def _mounted(self, path: str, namespace: str) -> Any:
        found = mounted_at(self.api.namespaces[namespace.strip("/")].mounts, path)
        assert found is not None, f"nothing is mounted at {path}"
        return found


@contextmanager
def vault_stand_in(tls: ssl.SSLContext | None = None) -> Iterator[VaultStandIn]:
    """Run a server until the block is left; what went wrong in it is raised then."""
    vault = VaultStandIn(tls)
    vault.start()
    try:
        yield vault
    finally:
        try:
            vault.stop()
        finally:
            vault.release_port()
