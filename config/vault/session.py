"""One signed-in client of a Vault server. Calls block, each question for a bounded time."""

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from config.schema import KvVersion
from config.vault.answers import Answer, Asked, Limit, Reading
from config.vault.errors import VaultDenied, VaultMissing, VaultUnusable, not_vault
from config.vault.settings import VaultSettings
from config.vault.tokens import Token, Tokens
from core.clock import Clock


class Session:
    """Signs in when it is first asked, and anew when its token has ended. Methods may be called from any thread.

    No question waits longer than twice `timeout_seconds`, whatever calls and sign-ins it takes.
    """

    def __init__(self, settings: VaultSettings, clock: Clock) -> None:
        # hvac and requests take 0.1 s and 13 MiB.
        from config.vault.calls import Calls  # noqa: PLC0415  here, for those alone who have a Vault

        self._settings = settings
        self._clock = clock
        self._calls = Calls(settings, clock)
        self._tokens = Tokens(settings, clock, self._calls)
        self._engines: dict[str, _Engine] = {}
        """By mount."""

    @property
    def sign_in(self) -> int:
        """Number of the present sign-in: what was borrowed in an earlier one ends with that one's token."""
        return self._tokens.sign_in

    @property
    def has_token(self) -> bool:
        """Whether it is signed in."""
        return self._tokens.present is not None

    def ends_with_session(self, sign_in: int) -> bool:
        """Whether :meth:`close` ends what was borrowed in ``sign_in``."""
        token = self._tokens.present
        return token is not None and token.own and token.number == sign_in

    def retune(self, settings: VaultSettings) -> None:
        """Take the timeout of ``settings``, which name the same server."""
        self._settings = settings
        self._calls.retune(settings)
        self._tokens.retune(settings)

    def signed_in(self) -> "Session":
        """Itself, once it has a token.

        Raises:
            VaultFault: it can have none.
        """
        self._tokens.get(self._limit())
        return self

    def token_due_at(self) -> float | None:
        """When to call :meth:`renew_token_if_due`, by the monotonic clock; None: not at all."""
        return self._tokens.due_at

    def renew_token_if_due(self) -> None:
        """Prolong a token that has spent two thirds of its life; sign in anew where that is not to be had.

        A given one gives way to what is given in its place.

        Raises:
            VaultFault: neither is possible now. The token stays in use, and is due again soon.
        """
        self._tokens.renew_if_due(self._limit())

    def close(self) -> None:
        """End the session, and with it the token and its leases where we signed in for it; a given one lives on."""
        self._tokens.close(self._limit())
        self._calls.close()

    def read(self, mount: str, path: str, version: int | None, kv: KvVersion) -> Reading:
        """What is at ``path`` of ``mount``; ``version`` of it in a KV store of version 2 (None: the last).

        Raises:
            VaultFault: it cannot be had.
        """
        limit = self._limit()
        return self._tokens.ask(lambda token: self._read(token, limit, mount, path, version, kv), limit)

    def renew_lease(self, lease_id: str, increment: float) -> float:
        """Ask for ``increment`` seconds from now; the seconds that it will last.

        Raises:
            VaultFault: it cannot be prolonged.
        """
        seconds = math.ceil(increment)
        answer = self._ask(
            Asked("sys/leases/renew", "update"), lambda client: client.sys.renew_lease(lease_id, seconds)
        )
        if not answer.lease_id:
            raise not_vault(self._settings.server)
        return answer.lease_duration

    def revoke(self, lease_id: str) -> None:
        """End a lease.

        Raises:
            VaultFault: it goes on.
        """
        self._ask(Asked("sys/leases/revoke", "update"), lambda client: client.sys.revoke_lease(lease_id))

    def transit_encrypt(self, mount: str, key: str, data: bytes) -> str:
        """``data`` wrapped by a key of the Transit engine: ``vault:v1:…``.

        Raises:
            VaultFault: it cannot be wrapped.
        """
        plain = base64.b64encode(data).decode()
        answer = self._ask(
            Asked(f"{mount}/encrypt/{key}", "update"),
            lambda client: client.secrets.transit.encrypt_data(name=key, plaintext=plain, mount_point=mount),
        )
        return self._text(answer, "ciphertext")

    def transit_decrypt(self, mount: str, key: str, text: str) -> bytes:
        """What :meth:`transit_encrypt` wrapped.

        Raises:
            VaultFault: it cannot be unwrapped.
        """
        answer = self._ask(
            Asked(f"{mount}/decrypt/{key}", "update"),
            lambda client: client.secrets.transit.decrypt_data(name=key, ciphertext=text, mount_point=mount),
        )
        try:
            return base64.b64decode(self._text(answer, "plaintext"), validate=True)
        except binascii.Error:
            raise VaultUnusable("what Vault's Transit engine unwrapped is no base64") from None

    def _limit(self) -> Limit:
        return Limit(self._clock, 2 * self._settings.config.timeout_seconds)

    def _ask(self, asked: Asked, call: Callable[[Any], object]) -> Answer:
        limit = self._limit()
        return self._tokens.ask(lambda token: self._calls(asked, limit, lambda: call(token.client)), limit)

    def _read(self, token: Token, limit: Limit, mount: str, path: str, version: int | None, kv: KvVersion) -> Reading:
        try:
            if (self._kv(token, limit, mount) if kv == "auto" else kv) == 2:
                return self._read_version(token, limit, mount, path, version)
            if version is not None:
                raise VaultMissing(f"`@{version}`: the store at `{mount}` keeps no versions: leave it out")
            answer = self._calls(
                Asked(f"{mount}/{path}"), limit, lambda: token.client.adapter.get(f"/v1/{quote(mount)}/{quote(path)}")
            )
        except VaultMissing:
            # Another engine may have been mounted there.
            self._engines.pop(mount, None)
            raise
        return Reading(
            self._data(answer),
            lease_id=answer.lease_id,
            # KV 1 tells a duration too, of a lease that is none.
            lease_seconds=answer.lease_duration if answer.lease_id else 0.0,
            renewable=answer.renewable,
            sign_in=token.number,
        )

    def _read_version(self, token: Token, limit: Limit, mount: str, path: str, version: int | None) -> Reading:
        asked = Asked(f"{mount}/data/{path}")
        answer = self._calls(
            asked,
            limit,
            lambda: token.client.secrets.kv.v2.read_secret_version(
                path=path, version=version, mount_point=mount, raise_on_deleted_version=True
            ),
        )
        inner = self._data(answer)
        data, metadata = inner.get("data"), inner.get("metadata")
        if not isinstance(metadata, dict):
            raise not_vault(self._settings.server)
        if not isinstance(data, dict):
            raise VaultMissing(f"Vault has nothing at `{asked.path}`: write it there, or mend the path")
        found = metadata.get("version")
        return Reading(data, found if isinstance(found, int) else None, sign_in=token.number)

    def _kv(self, token: Token, limit: Limit, mount: str) -> int:
        """The version of KV that ``mount`` is of; 0: it is another engine."""
        known = self._engines.get(mount)
        # Another token may be allowed to ask.
        if known is not None and (known.guessed_in is None or known.guessed_in == token.number):
            return known.kv
        asked = Asked(f"sys/internal/ui/mounts/{mount}")
        try:
            answer = self._calls(asked, limit, lambda: token.client.adapter.get(f"/v1/{quote(asked.path)}"))
        except VaultDenied:
            # It may not be asked before a policy opens something below; and most stores are of version 2.
            found = _Engine(2, token.number)
        else:
            found = _Engine(_kv_version(self._data(answer)))
        self._engines[mount] = found
        return found.kv

    def _data(self, answer: Answer) -> dict[str, Any]:
        if answer.data is None:
            raise not_vault(self._settings.server)
        return answer.data

    def _text(self, answer: Answer, name: str) -> str:
        text = self._data(answer).get(name)
        if not isinstance(text, str):
            raise VaultUnusable(f"Vault's answer holds no `{name}`")
        return text


class _Engine(msgspec.Struct, frozen=True):
    kv: int
    """0: it is none."""
    guessed_in: int | None = None
    """The sign-in whose token was not told."""


def _kv_version(mount: Mapping[str, object]) -> int:
    if mount.get("type") != "kv":
        return 0
    options = mount.get("options")
    return 2 if isinstance(options, Mapping) and options.get("version") == "2" else 1
