"""What the providers' life leaves in the database: lists of models, and the jobs that read them."""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from core.clock import Clock
from core.ids import new_job_id
from core.moments import MICROSECONDS, moment
from gateway.stores import Stores
from management.provider_service import Job, JobState, RefreshReport
from proxy.discovery import KeeperFailed, SeenList
from proxy.providers.model_list import read_models
from storage.errors import NotFound, StorageUnavailable
from storage.records import Job as StoredJob
from storage.records import ProviderModels, SeenModel

_MOST_JOBS = 100
_LONGEST_MICROSECONDS = 3600 * MICROSECONDS
"""A job takes minutes. One that seems to run for longer has ended with its process."""
_PAUSE_SECONDS = 15.0

_log = logging.getLogger("sluice.storage")


class KeptModels:
    """:class:`proxy.discovery.Keeper` in the database."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._version: int | None = None

    async def load(self) -> Mapping[str, SeenList]:
        """All lists if any has changed since the last call, else none."""
        if not self._stores.exists():
            return {}
        try:
            await self._stores.prepare()
            version = await self._stores.models.version()
            if version == self._version:
                return {}
            found = await self._stores.models.all()
        except StorageUnavailable as error:
            raise KeeperFailed from error
        self._version = version
        # Taken apart beside the event loop: there may be thousands.
        return await asyncio.get_running_loop().run_in_executor(None, _lists, found)

    async def keep(self, provider: str, seen: SeenList) -> None:
        """See :meth:`proxy.discovery.Keeper.keep`."""
        models = [SeenModel(model.id, model.raw or msgspec.json.encode(model.id)) for model in seen.models]
        try:
            await self._stores.prepare()
            await self._stores.models.replace(provider, models, round(seen.seen_at * MICROSECONDS))
        except StorageUnavailable as error:
            raise KeeperFailed from error


def _lists(found: Mapping[str, ProviderModels]) -> dict[str, SeenList]:
    return {
        name: SeenList(
            read_models(b"[%s]" % b",".join(one.raw for one in kept.models)).models, kept.seen_at / MICROSECONDS
        )
        for name, kept in found.items()
    }


class Jobs:
    """Jobs of this process, in memory, and in the database those of all; without it each process knows its own alone."""

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock
        self._own: OrderedDict[str, StoredJob] = OrderedDict()

    def new(self, kind: str) -> str:
        """One that runs from now on; its id."""
        job = StoredJob(id=new_job_id(), kind=kind, state=JobState.RUNNING.value, created_at=self._now())
        self._own[job.id] = job
        while len(self._own) > _MOST_JOBS:
            self._own.popitem(last=False)
        return job.id

    async def tell(self, job_id: str) -> None:
        """Let the other processes know of it, if the database can be used."""
        with contextlib.suppress(StorageUnavailable):
            await self._stores.prepare()
            owner = self._stores.owner.name()
            self._own[job_id] = await self._stores.jobs.begin(job_id, self._own[job_id].kind, owner)

    async def fail_left(self) -> None:
        """Those that ended processes of this machine have left as running have failed, and those of other machines that
        have run for too long. Ends when the database has answered."""
        while self._stores.exists():
            with contextlib.suppress(StorageUnavailable), self._stores.owner.gone() as gone:
                await self._stores.prepare()
                failed = await self._stores.jobs.fail_running(gone, self._now() - _LONGEST_MICROSECONDS)
                if failed:
                    _log.info("%d jobs have failed: the processes that ran them have ended", failed)
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def end(self, job_id: str, state: JobState, report: RefreshReport) -> None:
        """It has come to its end."""
        result = msgspec.to_builtins(report)
        job = self._own[job_id]
        ended = msgspec.structs.replace(job, state=state.value, finished_at=self._now(), result=result)
        # NotFound: the database was away when it began.
        with contextlib.suppress(StorageUnavailable, NotFound):
            ended = await self._stores.jobs.end(job_id, state.value, result)
        self._own[job_id] = ended

    async def get(self, job_id: str) -> Job | None:
        """None: there is none, or it has been forgotten.

        Raises:
            StorageUnavailable: it is none of this process, and others' cannot be known now.
        """
        job = self._own.get(job_id)
        if job is None:
            if not self._stores.exists():
                return None
            await self._stores.prepare()
            job = await self._stores.jobs.get(job_id)
        return None if job is None else self._shown(job)

    def _shown(self, job: StoredJob) -> Job:
        lost = job.state == JobState.RUNNING.value and self._now() - job.created_at > _LONGEST_MICROSECONDS
        return Job(
            id=job.id,
            kind=job.kind,
            state=JobState.FAILED if lost else JobState(job.state),
            created_at=moment(job.created_at),
            finished_at=moment(job.finished_at),
            result=None if job.result is None else msgspec.convert(job.result, RefreshReport),
        )

    def _now(self) -> int:
        return round(self._clock.time() * MICROSECONDS)
