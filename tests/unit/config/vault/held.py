"""Values of Vault as a gateway holds them, on a session whose server is a few dictionaries."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from config.references import Reference, References, parse_template
from config.schema import KvVersion, Vault
from config.vault.answers import Reading
from config.vault.errors import Reason, VaultFault, VaultMissing, VaultUnavailable
from config.vault.kept import KeptValues
from config.vault.session import Session
from config.vault.settings import VaultSettings
from config.vault.values import VaultValues
from core.clock import ManualClock
from core.events import Event

ExpectLog = Callable[..., AbstractContextManager[None]]

CACHE_SECONDS = 60.0
OPENAI = "secret/llm/openai"
DATABASE = "database/creds/app"
KEY = f"{OPENAI}#key"
LABEL = f"${{vault:{KEY}}}"


class FakeSession(Session):
    """A session whose server is a few dictionaries. ``fault`` stands in the way of everything, ``faults`` of one path."""

    def __init__(self, settings: VaultSettings, clock: ManualClock) -> None:
        super().__init__(settings, clock)
        self.secrets: dict[str, dict[str, object]] = {}
        self.fault: VaultFault | None = None
        self.faults: dict[str, VaultFault] = {}
        self.lease_seconds = 0.0
        self.renewable = True
        self.granted_seconds: list[float] = []
        """What prolongations give; then what was asked for."""
        self.sign_ins = 1
        self.token_is_ours = False
        self.token_times: list[float] = []
        self.token_fault: VaultFault | None = None
        self.asked: list[str] = []
        self.revoked: list[str] = []
        self.revocations = 0
        self.closed = 0
        self.before_reading: Callable[[], object] = lambda: None
        self._leases = 0
        self._guard = threading.Lock()

    def read(self, mount: str, path: str, version: int | None, kv: KvVersion) -> Reading:
        name = f"{mount}/{path}"
        with self._guard:
            self.asked.append(name)
            self._leases += 1
            lease = f"{name}/{self._leases}" if self.lease_seconds else ""
        self.before_reading()
        for fault in (self.fault, self.faults.get(name)):
            if fault is not None:
                raise fault
        if name not in self.secrets:
            raise VaultMissing(f"Vault has nothing at `{name}`")
        return Reading(
            dict(self.secrets[name]),
            lease_id=lease,
            lease_seconds=self.lease_seconds,
            renewable=self.renewable and bool(lease),
            sign_in=self.sign_ins,
        )

    def renew_lease(self, lease_id: str, increment: float) -> float:
        self.asked.append(f"renew {lease_id}")
        for fault in (self.fault, self.faults.get("renew")):
            if fault is not None:
                raise fault
        return self.granted_seconds.pop(0) if self.granted_seconds else increment

    def revoke(self, lease_id: str) -> None:
        self.revocations += 1
        if "revoke" in self.faults:
            raise self.faults["revoke"]
        self.revoked.append(lease_id)

    @property
    def sign_in(self) -> int:
        return self.sign_ins

    @property
    def has_token(self) -> bool:
        return self.sign_ins > 0

    def ends_with_session(self, sign_in: int) -> bool:
        return self.token_is_ours and sign_in == self.sign_ins

    def token_due_at(self) -> float | None:
        return self.token_times[0] if self.token_times else None

    def renew_token_if_due(self) -> None:
        self.token_times.pop(0)
        if self.token_fault is not None:
            raise self.token_fault

    def close(self) -> None:
        self.closed += 1

    def take(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


class Held:
    """Values and what they are made of; rounds are run by the test."""

    def __init__(self, pool: ThreadPoolExecutor, kept: KeptValues | None = None, address: str = "http://vault") -> None:
        self.clock = ManualClock()
        self.events: list[Event] = []
        settings = VaultSettings(Vault(address=address, cache_seconds=CACHE_SECONDS), Path())
        self.vault = FakeSession(settings, self.clock)
        self.values = VaultValues(settings, self.clock, pool, kept, self.events.append, self.vault)

    def load(self, *texts: str) -> list[Callable[[], str]]:
        """Handles on the references, as a document gets them, which is put in force."""
        references = [named(text) for text in texts]
        self.values.fetch(references)
        handles = [References({"vault": self.values.resolve}).secret((each,)).reveal for each in references]
        self.values.follow(references)
        return handles

    async def pass_on(self, seconds: float) -> None:
        """Let time pass, and the round run that comes then."""
        self.clock.advance(seconds)
        await self.values._round()

    def take(self) -> list[Event]:
        events, self.events[:] = list(self.events), []
        return events


def named(text: str) -> Reference:
    (reference,) = parse_template(f"${{vault:{text}}}")
    assert isinstance(reference, Reference)
    return reference


def unavailable(reason: Reason = "unreachable") -> VaultUnavailable:
    return VaultUnavailable(f"Vault is {reason}", reason)
