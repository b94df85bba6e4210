"""Providers for the tests of handlers: what is asked of them is answered from what a test has put here."""

from datetime import UTC, datetime

from management.provider_service import (
    Job,
    JobState,
    KnownModel,
    KnownModels,
    ProbeAsked,
    ProbeError,
    ProbeResult,
    ProviderHealth,
    ProviderState,
    RefreshFailed,
    UnknownProvider,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Providers:
    """:class:`management.provider_service.ProviderService` with the providers `openai` and `local`."""

    def __init__(self) -> None:
        self.lists = {
            "openai": KnownModels(
                provider="openai",
                models=tuple(KnownModel(id=f"gpt-{number}", owned_by="openai") for number in range(1, 6)),
                seen_at=AT,
                stale=False,
                stored=True,
            ),
            "local": KnownModels(provider="local"),
        }
        self.failure: ProbeError | None = None
        """What a test or a reading comes to; None: it goes well."""
        self.tested: list[tuple[str, str | None]] = []
        self.jobs = {
            "job_1": Job(id="job_1", kind="models.refresh", state=JobState.RUNNING, created_at=AT),
        }

    def _require(self, name: str) -> None:
        if name not in self.lists:
            raise UnknownProvider(name)

    def health(self, name: str) -> ProviderHealth:
        self._require(name)
        return ProviderHealth(name=name, type="openai", state=ProviderState.UP, since=AT, last_success_at=AT)

    async def test(self, name: str, model: str | None = None) -> ProbeResult:
        self._require(name)
        self.tested.append((name, model))
        asked = ProbeAsked(method="GET", url="https://api.openai.com/v1/models", credential="main", model=model)
        return ProbeResult(
            ok=self.failure is None,
            status=200 if self.failure is None else None,
            error=self.failure,
            duration_seconds=0.25,
            asked=asked,
        )

    async def models(self, name: str) -> KnownModels:
        self._require(name)
        return self.lists[name]

    async def all_models(self) -> tuple[KnownModels, ...]:
        return tuple(self.lists.values())

    async def refresh(self, name: str) -> KnownModels:
        self._require(name)
        if self.failure is not None:
            raise RefreshFailed(self.failure)
        return self.lists[name]

    async def refresh_all(self) -> str:
        return "job_1"

    async def job(self, job_id: str) -> Job | None:
        return self.jobs.get(job_id)
