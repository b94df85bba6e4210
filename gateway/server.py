"""One gateway process: start-up, what runs meanwhile, shutdown."""

import asyncio
import contextlib
import io
import logging
import signal
import socket
from pathlib import Path

from core.events import GatewayStarted, GatewayStopping
from gateway.build import server_tls
from gateway.control import RefreshAccounts, RefreshTokens
from gateway.control_plane import make_dependencies
from gateway.editing import ConfigEditor
from gateway.frontdoor import DataPlaneEntry, FrontDoor
from gateway.listeners import Listener, no_tls, own_url, shown_address, shown_url
from gateway.provider_life import ProviderLife
from gateway.reload import Reloader
from gateway.resources import Resources
from gateway.revisions import RevisionKeeper
from gateway.settings import Started
from gateway.spread import Spread
from gateway.status import health
from management.dependencies import Health
from management.routes import build_application
from proxy.admission import Quotas
from proxy.pipeline import Pipeline
from telemetry.access_log import AccessLog, mixes_writes
from telemetry.ledger_retention import Retention
from telemetry.loop_lag import LoopLag
from transport.server import ServerLimits

_log = logging.getLogger("sluice.server")

# Connections taken from the backlog at the last moment need this long to bring their request.
_LAST_REQUEST_SECONDS = 0.25
# It is open, be it on the null device: see gateway/__main__.py.
_STANDARD_OUTPUT = 1
# A client that takes nothing cannot be told anything: it is waited for no longer than this.
_FAREWELL_SECONDS = 1.0


class Server:
    """A process that serves listening sockets with the configuration at ``path``."""

    def __init__(
        self,
        path: Path,
        resources: Resources,
        spread: Spread | None = None,
        *,
        keeps_files: bool = True,
        started: Started | None = None,
    ) -> None:
        """``spread`` tells whether the next connection is this worker's turn; None: there are no others.

        ``keeps_files``: of all workers this is the one that keeps the revisions which nobody has asked for by the API, and
        that forgets old rows of the ledger.
        """
        self._resources = resources
        self._spread = spread
        self._keeps_files = keeps_files
        self._started = started or Started()
        self.reloader = Reloader(path, resources)
        self._revisions = RevisionKeeper(
            resources.stores, resources.clock, resources.background, keeps_files=keeps_files
        )
        self._editor = ConfigEditor(resources, self.reloader, self._revisions)
        resources.others.on(RefreshTokens, lambda task: resources.token_keeper.refresh(task.version))
        resources.others.on(RefreshAccounts, resources.credentials.told)
        self._providers = ProviderLife(resources, self.reloader.current)
        self._draining = False
        self._handed_over = False
        self._stop_asked = asyncio.Event()
        self._end_asked = asyncio.Event()
        self._started_at = resources.clock.time()
        self._listeners: list[Listener] = []
        self._access_log = AccessLog(
            # Standard output without a buffer of Python's: the log batches by itself.
            io.FileIO(_STANDARD_OUTPUT, "wb", closefd=False),
            resources.clock,
            lambda: self.reloader.current().config.telemetry.access_log,
            # Other workers write there too, or a successor does while this process drains.
            shared=mixes_writes(_STANDARD_OUTPUT),
        )

    async def run(self, sockets: list[socket.socket], management_sockets: list[socket.socket]) -> None:
        """Serve until told to stop. The first generation is loaded already (:meth:`Reloader.start`)."""
        resources = self._resources
        self._access_log.subscribe(resources.events)
        self._take_signals()
        background = resources.background
        await resources.token_keeper.start(background)
        self._editor.start()
        self._providers.start()
        resources.teller.begin()
        self._start_ledger()
        await resources.quotas.start()
        tls = self.reloader.current().config.server.tls is not None
        await resources.credentials.start(own_url(management_sockets or sockets, tls=tls))
        self._listen(sockets, management_sockets)
        background.spawn(self.reloader.watch(), "watch")
        background.spawn(LoopLag(resources.clock, resources.metrics.observe_loop_lag).run(), "loop lag")
        background.spawn(resources.metrics.run(), "metrics")
        generation = self.reloader.current()
        resources.events.emit(GatewayStarted(address=shown_address(sockets), revision=generation.revision))
        _log.info("listening on %s", shown_url(sockets, tls=generation.config.server.tls is not None))
        try:
            await self._stop_asked.wait()
            await self._drain()
        finally:
            for listener in self._listeners:
                listener.stop_accepting()
            # Before their connections close: each exchange that is cut tells its client so.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await resources.tasks.cancel()
            for listener in self._listeners:
                await listener.close()
            await self._revisions.close()
            await resources.close()
            self._access_log.close()
            _log.info("stopped")

    def _start_ledger(self) -> None:
        resources = self._resources
        resources.ledger.start(resources.events, resources.stores.spool)
        if self._keeps_files:
            retention = Retention(
                resources.stores.ledger,
                resources.stores.exists,
                resources.clock,
                resources.random,
                lambda: self.reloader.current().config.usage.retention_seconds,
            )
            resources.background.spawn(retention.run(), "ledger retention")

    def _listen(self, sockets: list[socket.socket], management_sockets: list[socket.socket]) -> None:
        resources, reloader = self._resources, self.reloader
        application = build_application(
            make_dependencies(
                resources,
                reloader,
                editor=self._editor,
                providers=self._providers,
                ready=lambda: reloader.loaded and (self._handed_over or not self._draining),
                health=self._health,
                started=self._started,
            )
        )
        quotas = Quotas(resources.quotas.store, resources.events, resources.clock, resources.metrics.quotas)
        pipeline = Pipeline(resources.events, resources.clock, quotas)
        entry = DataPlaneEntry(pipeline, lambda: reloader.current().plane, resources.clock, resources.tasks)
        own = bool(management_sockets)
        doors = [(sockets, FrontDoor(application, entry, management=not own, draining=self.is_draining))]
        if own:
            doors.append((management_sockets, FrontDoor(application, None, management=True, draining=self.is_draining)))
        tls = server_tls(reloader.current().loaded)
        self._listeners = [
            Listener(
                bound,
                door,
                self._limits,
                tls=no_tls if tls is None else tls.context,
                max_connections=lambda: reloader.current().config.server.max_connections,
                # The management's own listener is nobody's burden.
                spread=self._spread if bound is sockets else None,
            )
            for bound, door in doors
        ]
        for listener in self._listeners:
            listener.start()

    def _limits(self) -> ServerLimits:
        """For connections that are accepted from now on."""
        settings = self.reloader.current().config.server
        return ServerLimits(
            header_bytes=settings.max_header_bytes,
            header_count=settings.max_header_fields,
            url_bytes=settings.max_url_bytes,
            header_seconds=settings.header_seconds,
            body_idle_seconds=settings.body_idle_seconds,
            send_idle_seconds=settings.send_idle_seconds,
            keep_alive_seconds=settings.keep_alive_seconds,
            requests_per_connection=settings.max_requests_per_connection,
        )

    def is_draining(self) -> bool:
        return self._draining

    def stop(self) -> None:
        """Ask for an orderly end; asked again, for one at once."""
        if self._stop_asked.is_set():
            self._end_asked.set()
        self._stop_asked.set()

    def hand_over(self) -> None:
        """Ask for an orderly end, where another process serves the same address by now."""
        if not self._stop_asked.is_set():
            self._handed_over = True
            self._stop_asked.set()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: self._resources.background.spawn(self.reloader.reload("signal"), "reload")
        )

    async def _drain(self) -> None:
        settings = self.reloader.current().config.server
        self._draining = True
        self._resources.events.emit(GatewayStopping(reason="upgrade" if self._handed_over else "signal"))
        # No load balancer has to take notice: the address is served all the time.
        delay_seconds = 0.0 if self._handed_over else settings.drain_delay_seconds
        _log.info(
            "stopping: %d requests in flight have up to %g s",
            len(self._resources.tasks),
            delay_seconds + settings.drain_seconds,
        )
        background = self._resources.background
        work = background.spawn(self._finish_requests(delay_seconds, settings.drain_seconds), "drain")
        ended = background.spawn(self._end_asked.wait(), "second signal")
        await asyncio.wait((work, ended), return_when=asyncio.FIRST_COMPLETED)
        left = len(self._resources.tasks)
        if left:
            _log.warning("%d requests are cut: the time for draining is over", left)

    async def _finish_requests(self, delay_seconds: float, seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        for listener in self._listeners:
            listener.stop_accepting()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        await asyncio.sleep(min(_LAST_REQUEST_SECONDS, seconds))
        while len(self._resources.tasks) and loop.time() < deadline:
            await self._resources.tasks.join(deadline - loop.time())

    def _health(self) -> Health:
        return health(self.reloader, self._resources, self._started_at, draining=self._draining)
