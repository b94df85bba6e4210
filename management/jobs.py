"""Work that goes on after the answer that began it."""

from core.identity import Role
from management.errors import JobError, ManagementError, StorageError
from management.handler.base import ManagementHandler
from management.handler.operation import operation
from management.handler.permit import requires
from management.provider_service import Job


class JobItem(ManagementHandler):
    """``/api/v1/jobs/{id}``."""

    @operation(
        requires(Role.ADMIN),
        summary="How far a job is, and what came of it.",
        answers={200: Job},
        errors=(JobError.NOT_FOUND, StorageError.UNAVAILABLE),
    )
    async def get(self, job_id: str) -> None:
        job = await self.dependencies.providers.job(job_id)
        if job is None:
            raise ManagementError(
                JobError.NOT_FOUND, "There is no such job: the newest thousand are kept, of all kinds together."
            )
        self.write_json(job)
