"""Any Vault or OpenBao server for tests, prepared through hvac: the state that a test needs, and no more than that.

To run the tests of the Vault session on a real one as well, start a server that keeps nothing and name it::

    bao server -dev -dev-root-token-id=root &          # or: vault server -dev -dev-root-token-id=root
    SLUICE_TEST_VAULT_ADDR=http://127.0.0.1:8200 SLUICE_TEST_VAULT_TOKEN=root \
        .venv-dev/bin/python -m pytest tests/integration/test_vault_session.py

The token must be allowed to enable mounts and methods and to write policies. All that is made is named
`sluice-test-…`, and removed at the end.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import hvac
import hvac.exceptions

from tests.vault_state import Login, Rules

ADDRESS, TOKEN = "SLUICE_TEST_VAULT_ADDR", "SLUICE_TEST_VAULT_TOKEN"
_READY_SECONDS = 10.0


class NoNamespaces(Exception):
    """The server knows none: they are of Vault Enterprise, and of OpenBao from 2.3 on."""


class PreparedVault(Protocol):
    """What tests prepare alike on the stand-in and on a real server. Paths begin with what :meth:`mount` gave."""

    @property
    def address(self) -> str: ...

    def namespace(self, path: str) -> str:
        """Make a namespace; its path as clients name it."""
        ...

    def mount(
        self, path: str, kind: str = "kv-v2", options: Mapping[str, str] | None = None, *, namespace: str = ""
    ) -> str:
        """Enable an engine; where it is mounted, which may be elsewhere than ``path``."""
        ...

    def put(self, path: str, /, *, namespace: str = "", **fields: Any) -> int:
        """Write a secret; its version (0 of key-value 1)."""
        ...

    def delete(self, path: str, version: int | None = None, *, destroy: bool = False, namespace: str = "") -> None: ...

    def policy(self, rules: Rules, name: str = "", *, namespace: str = "") -> str:
        """Write a policy; its name."""
        ...

    def token(
        self,
        *policies: str,
        ttl: float = 0,
        max_ttl: float = 0,
        period: float = 0,
        renewable: bool = True,
        namespace: str = "",
    ) -> str: ...

    def approle(
        self,
        *policies: str,
        ttl: float = 0,
        max_ttl: float = 0,
        period: float = 0,
        mount: str = "approle",
        namespace: str = "",
    ) -> Login: ...

    def expire_token(self, token: str) -> None:
        """End a token from outside."""
        ...

    def is_good(self, token: str) -> bool:
        """Whether a token is still accepted."""
        ...

    def advance(self, seconds: float) -> None:
        """Let so much time pass for the server."""
        ...


class VaultServer:
    """A :class:`PreparedVault` at ``address``, by ``token``."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self._token = token
        self._name = f"sluice-test-{secrets.token_hex(4)}"
        self._kinds: dict[tuple[str, str], str] = {}
        self._made = ExitStack()
        self._clients: dict[str, hvac.Client] = {}

    def close(self) -> None:
        """Remove what was made, the last first."""
        try:
            self._made.close()
        finally:
            for client in self._clients.values():
                client.adapter.close()

    def namespace(self, path: str) -> str:
        parent, _, name = path.rpartition("/")
        # Below one of ours, names need not be ours alone.
        name = name if parent else f"{self._name}-{name}"
        client = self._client(parent)
        try:
            _system(client).create_namespace(path=name)
        except (
            hvac.exceptions.Forbidden,
            hvac.exceptions.InvalidPath,
            hvac.exceptions.InvalidRequest,
            hvac.exceptions.UnexpectedError,
        ) as error:
            raise NoNamespaces(str(error)) from error
        self._at_the_end(lambda: _system(client).delete_namespace(path=name))
        return f"{parent}/{name}" if parent else name

    def mount(
        self, path: str, kind: str = "kv-v2", options: Mapping[str, str] | None = None, *, namespace: str = ""
    ) -> str:
        client = self._client(namespace)
        path = f"{self._name}-{path}"
        given = dict(options) if options else None
        if kind == "kv-v2":
            kind, given = "kv", {"version": "2"}
        _system(client).enable_secrets_engine(backend_type=kind, path=path, options=given)
        self._at_the_end(lambda: _system(client).disable_secrets_engine(path=path))
        second = kind == "kv" and (given or {}).get("version") == "2"
        self._kinds[namespace, path] = "kv-v2" if second else kind
        if second:
            # Such a store is made ready after it is mounted.
            _when_ready(lambda: client.secrets.kv.v2.read_configuration(mount_point=path))
        return path

    def put(self, path: str, /, *, namespace: str = "", **fields: Any) -> int:
        client, mount, kind, rest = self._mounted(path, namespace)
        if kind == "kv-v2":
            answer = client.secrets.kv.v2.create_or_update_secret(path=rest, secret=fields, mount_point=mount)
            return int(answer["data"]["version"])
        client.secrets.kv.v1.create_or_update_secret(path=rest, secret=fields, mount_point=mount)
        return 0

    def delete(self, path: str, version: int | None = None, *, destroy: bool = False, namespace: str = "") -> None:
        client, mount, kind, rest = self._mounted(path, namespace)
        if kind != "kv-v2":
            client.secrets.kv.v1.delete_secret(path=rest, mount_point=mount)
            return
        store = client.secrets.kv.v2
        if version is None:
            version = int(store.read_secret_metadata(path=rest, mount_point=mount)["data"]["current_version"])
        if destroy:
            store.destroy_secret_versions(path=rest, versions=[version], mount_point=mount)
        else:
            store.delete_secret_versions(path=rest, versions=[version], mount_point=mount)

    def policy(self, rules: Rules, name: str = "", *, namespace: str = "") -> str:
        client = self._client(namespace)
        name = name or f"{self._name}-{secrets.token_hex(4)}"
        written = {path: {"capabilities": list(granted)} for path, granted in rules.items()}
        _system(client).create_or_update_acl_policy(name=name, policy=json.dumps({"path": written}))
        self._at_the_end(lambda: _system(client).delete_acl_policy(name=name))
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
        client = self._client(namespace)
        made: str = client.auth.token.create(
            policies=list(policies) or ["default"],
            ttl=_duration(ttl),
            explicit_max_ttl=_duration(max_ttl),
            period=_duration(period),
            renewable=renewable,
            no_parent=True,
        )["auth"]["client_token"]
        self._at_the_end(lambda: self.expire_token(made))
        return made

    def approle(
        self,
        *policies: str,
        ttl: float = 0,
        max_ttl: float = 0,
        period: float = 0,
        mount: str = "approle",
        namespace: str = "",
    ) -> Login:
        client = self._client(namespace)
        mount, role = f"{self._name}-{mount}", f"role-{secrets.token_hex(4)}"
        if (namespace, mount) not in self._kinds:
            _system(client).enable_auth_method(method_type="approle", path=mount)
            self._at_the_end(lambda: _system(client).disable_auth_method(path=mount))
            self._kinds[namespace, mount] = "approle"
        method = client.auth.approle
        method.create_or_update_approle(
            role_name=role,
            token_policies=list(policies),
            token_ttl=_duration(ttl),
            token_max_ttl=_duration(max_ttl),
            token_period=_duration(period),
            mount_point=mount,
        )
        role_id = method.read_role_id(role_name=role, mount_point=mount)["data"]["role_id"]
        secret_id = method.generate_secret_id(role_name=role, mount_point=mount)["data"]["secret_id"]
        return Login(mount, role_id, secret_id)

    def expire_token(self, token: str) -> None:
        # One that has ended already is not known any more.
        if self.is_good(token):
            self._client("").auth.token.revoke(token=token)

    def is_good(self, token: str) -> bool:
        try:
            self._client("").auth.token.lookup(token=token)
        except (hvac.exceptions.Forbidden, hvac.exceptions.InvalidPath):
            return False
        return True

    def advance(self, seconds: float) -> None:
        """Nobody puts the clock of a real server forward: wait."""
        time.sleep(seconds)

    def _client(self, namespace: str) -> hvac.Client:
        if namespace not in self._clients:
            client = hvac.Client(url=self.address, token=self._token, namespace=namespace or None, timeout=10)
            self._clients[namespace] = client
        return self._clients[namespace]

    def _mounted(self, path: str, namespace: str) -> tuple[hvac.Client, str, str, str]:
        fitting = [at for where, at in self._kinds if where == namespace and path.startswith(f"{at}/")]
        mount = max(fitting, key=len)
        return self._client(namespace), mount, self._kinds[namespace, mount], path[len(mount) + 1 :]

    def _at_the_end(self, call: Callable[[], object]) -> None:
        self._made.callback(call)


def _system(client: hvac.Client) -> Any:
    # Its methods have no types in hvac's stubs.
    return client.sys


def _duration(seconds: float) -> str | None:
    return f"{seconds:g}s" if seconds else None


def _when_ready(call: Callable[[], object]) -> None:
    until = time.monotonic() + _READY_SECONDS
    while True:
        try:
            call()
        except hvac.exceptions.InvalidRequest:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def real_server() -> tuple[str, str] | None:
    """Address and token of the server that the environment names; None: it names none."""
    address, token = os.environ.get(ADDRESS), os.environ.get(TOKEN)
    return (address, token) if address and token else None


@contextmanager
def prepared(address: str, token: str) -> Iterator[VaultServer]:
    """A server to prepare; what was made on it is removed when the block is left."""
    server = VaultServer(address, token)
    try:
        yield server
    finally:
        server.close()
