"""The live credentials of the file: their tokens are kept in memory, by each process for itself."""

import hashlib

import msgspec

from config.schema import Credential, OAuthProvider, TokenPlacement
from core.secret import Secret
from credentials.live import LiveCredential, Wanted
from credentials.members import Member, member_of_file
from credentials.records import AccountSettings
from credentials.tokens import CredentialSource


class Declared:
    """One of them."""

    __slots__ = ("credential", "definition", "live", "placement", "source")

    def __init__(
        self,
        live: LiveCredential,
        credential: Credential,
        source: CredentialSource,
        placement: TokenPlacement,
        definition: object,
    ) -> None:
        self.live = live
        live.obtain = self._obtain
        self.follow(credential, source, placement)
        self.definition = definition
        """What its tokens go by: another one has other tokens."""

    def follow(self, credential: Credential, source: CredentialSource, placement: TokenPlacement) -> None:
        """The configuration says this of it by now; its definition is the same."""
        self.credential = credential
        self.source = source
        self.placement = placement

    def member(self) -> Member:
        """As a pool has it."""
        return member_of_file(self.credential, self.live.secret, self.live, self.placement)

    async def _obtain(self, wanted: Wanted) -> bool:
        held = self.live.tokens
        if held is not None and not wanted.stale(held):
            return False
        self.live.take(await self.source.obtain(held))
        return True


def settings_of(credential: Credential) -> AccountSettings:
    """What the file says of a credential, in the words of accounts."""
    return AccountSettings(
        weight=credential.weight,
        priority=credential.priority,
        prefix=credential.prefix,
        models=credential.models,
        disabled=credential.disabled,
        note=credential.note,
    )


def definition_of(credential: Credential, server: OAuthProvider | None) -> object:
    """What its tokens go by: who gives them, and for what. ``server``: the one that `client_credentials` names."""
    kinds = (credential.google_service_account, credential.azure_entra, credential.command, server)
    return credential.client_credentials, *map(_plain, kinds)


def _plain(value: object) -> object:
    return msgspec.to_builtins(value, enc_hook=_shown)


def _shown(value: object) -> object:
    """A secret by where it comes from and what it is now: one that has another value is asked with anew."""
    if not isinstance(value, Secret):
        raise NotImplementedError(f"{type(value).__name__} stands in no definition of a credential")
    try:
        digest = hashlib.sha256(value.reveal().encode("utf-8", "surrogatepass")).hexdigest()
    except Exception:  # it cannot be read now: whoever uses it is told
        digest = ""
    return [value.label, digest]
