"""Credentials for the tests of handlers: accounts in memory, whose tokens are nobody's, and a file."""

import msgspec

from credentials.credential_state import CredentialState
from credentials.errors import StoreConflict
from credentials.records import AccountSettings
from management.credential_bodies import CredentialPatch, CredentialShown, Exported, ExportedSettings, NewCredential
from management.credential_service import Changed, InFile, NameTaken, Removed, UnknownCredential

AT = 1_700_000_000_000_000


class Credentials:
    """:class:`management.credential_service.CredentialService`."""

    def __init__(self) -> None:
        self.states: dict[str, CredentialState] = {}
        self.failing: Exception | None = None
        """Raised by whatever changes, refreshes or gives something away."""
        self.revoked: tuple[bool, str | None] = (True, None)
        self.given: list[NewCredential | CredentialPatch | Exported] = []

    def put(self, name: str, **members: object) -> CredentialState:
        """One of the provider `openai`; an account unless ``members`` say otherwise."""
        about: dict[str, object] = {
            "kind": "oauth",
            "source": "account",
            "settings": AccountSettings(),
            "state": "ready",
            "version": 1,
            **members,
        }
        state = msgspec.convert({"provider": "openai", "name": name, **about}, CredentialState)
        self.states[f"{state.provider}/{name}"] = state
        return state

    async def all(self) -> tuple[CredentialShown, ...]:
        return tuple(CredentialShown.of(self.states[each]) for each in sorted(self.states))

    async def get(self, provider: str, name: str) -> CredentialShown:
        found = self.states.get(f"{provider}/{name}")
        if found is None:
            raise UnknownCredential(f"There is no credential `{provider}/{name}`")
        return CredentialShown.of(found)

    async def account(self, provider: str, name: str) -> CredentialShown:
        found = await self.get(provider, name)
        if found.source == "file":
            raise InFile(f"The credential is declared in the configuration: edit `providers[{provider}]` there")
        return found

    async def add(self, new: NewCredential) -> CredentialShown:
        self._note(new)
        if f"{new.provider}/{new.name}" in self.states:
            raise NameTaken(f"There is a credential `{new.name}`")
        return CredentialShown.of(
            self.put(new.name, provider=new.provider, settings=new.settings, has_proxy=new.proxy_url is not None)
        )

    async def change(self, provider: str, name: str, seen: int, patch: CredentialPatch) -> Changed:
        self._note(patch)
        before = self.states[f"{provider}/{name}"]
        if before.version != seen:
            raise StoreConflict("it has changed")
        after = self.put(
            name,
            settings=patch.patched(before.settings),
            version=seen + 1,
            has_proxy=before.has_proxy if patch.proxy_url is msgspec.UNSET else patch.proxy_url is not None,
            updated_at=AT,
        )
        return Changed(CredentialShown.of(before), CredentialShown.of(after))

    async def remove(self, provider: str, name: str, seen: int | None) -> Removed:
        self._note()
        before = self.states[f"{provider}/{name}"]
        if before.version != seen:
            raise StoreConflict("it has changed")
        del self.states[f"{provider}/{name}"]
        return Removed(CredentialShown.of(before), *self.revoked)

    async def refresh(self, provider: str, name: str) -> CredentialShown:
        self._note()
        return CredentialShown.of(self.put(name, refreshed_at=AT, version=2))

    async def export(self, provider: str, name: str) -> Exported:
        self._note()
        return Exported(sluice_credential=1, provider=provider, name=name, oauth="corp", sealed="k1:c2VhbGVk")

    async def take(self, exported: Exported) -> CredentialShown:
        self._note(exported)
        settings = AccountSettings(**msgspec.structs.asdict(exported.settings))
        return CredentialShown.of(self.put(exported.name, provider=exported.provider, settings=settings))

    def _note(self, *given: NewCredential | CredentialPatch | Exported) -> None:
        if self.failing is not None:
            raise self.failing
        self.given += given


EXPORTED = Exported(
    sluice_credential=1,
    provider="openai",
    name="main",
    oauth="corp",
    settings=ExportedSettings(weight=2),
    sealed="k1:c2VhbGVk",
)
