"""What the checks look at, and what they tell each other."""

from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path as FilePath
from urllib.parse import urlsplit

import msgspec

from config.faults import Fault, Path
from config.schema import Config
from core.headers import Headers
from core.secret import Secret
from gateway.build import Generation
from gateway.doctor.draft import references, texts
from gateway.doctor.examine import Examined
from gateway.doctor.report import Finding, Where
from gateway.resources import Resources
from transport.dialing import Dialer
from transport.messages import Clocks, ConnectionOptions

SECONDS = Clocks(connect_seconds=5.0, first_byte_seconds=10.0, idle_seconds=10.0)
"""How long a server is waited for."""


class Settings(msgspec.Struct, frozen=True):
    """What the command line says."""

    env_file: FilePath | None = None
    offline: bool = False
    token_env: str | None = None
    """The variable that holds a token, for a request through `server.public_url`."""


class Reading(msgspec.Struct, frozen=True):
    """What a server said of the time."""

    server: str
    """Host and port."""
    ahead_seconds: float
    """By how much its clock is ahead of this machine's."""


class Context:
    """One examination. Whatever a check finds out that another needs is an attribute here."""

    def __init__(self, settings: Settings, resources: Resources, dialer: Dialer, examined: Examined) -> None:
        self.settings = settings
        self.resources = resources
        self.dialer = dialer
        self.examined = examined
        self.readings: list[Reading] = []
        self.runs_here = False
        """Whether a gateway answers at `server.listen`."""
        # What masks secrets in texts knows every handle, for as long as it is held.
        self._held = [Secret.literal(value) for value in self._further_secrets()]

    @property
    def generation(self) -> Generation | None:
        """What loads of the document."""
        return self.examined.generation

    @property
    def config(self) -> Config:
        """The same; the defaults, where nothing does."""
        generation = self.examined.generation
        return generation.config if generation is not None else Config()

    @property
    def env(self) -> Mapping[str, str]:
        """The environment, with what the environment file says."""
        return self.resources.environment

    @property
    def directory(self) -> FilePath:
        """Where relative names of the document begin."""
        return self.examined.path.absolute().parent

    def file(self, name: str | None) -> str | None:
        """A file that the document names."""
        return None if name is None else str(self.directory / name)

    def where(self, *path: str | int) -> Where:
        """The place in the document of the configuration's value at ``path``, or of what is nearest to it."""
        return self.where_written(self.examined.original(path))

    def where_written(self, path: Path) -> Where:
        """The same for a path of the document as written."""
        located = Where.of(self.examined.place.locate(Fault(path, "")))
        _, written = self.examined.place.find(path)
        # A default stands on no line.
        return located if written else Where(located.path, located.file)

    def is_damaged(self, *path: str | int, but: str | None = None) -> bool:
        """Whether something at ``path``, above or beneath it is at fault, so that what loads is not what was meant.

        What is beneath its key ``but`` does not count.
        """
        return self.examined.is_damaged(self.examined.original(path), but)

    def heard(self, url: str, headers: Headers) -> None:
        """Note the time that an answer from ``url`` tells (RFC 9110 section 6.6.1)."""
        date = headers.get("date")
        # What a cache has kept tells an earlier time.
        if date is None or "age" in headers:
            return
        try:
            said = parsedate_to_datetime(date).timestamp()
        except (ValueError, OverflowError):
            return
        server = urlsplit(url).netloc
        if server not in {reading.server for reading in self.readings}:
            self.readings.append(Reading(server, said - self.resources.clock.time()))

    def _further_secrets(self) -> list[str]:
        """What no output may hold, and the configuration has no handle of."""
        found = [value for provider in self.config.providers for value in provider.headers.values()]
        # What is not in use, or did not load.
        for _, text, secret in texts(self.examined.value):
            if secret:
                parts = references(text)
                found += [each.default for each in parts if each.default] if parts else [text]
                found += [self.env.get(each.parts["name"], "") for each in parts if each.scheme == "env"]
        if self.settings.token_env is not None:
            found.append(self.env.get(self.settings.token_env, ""))
        return found


Check = Callable[[Context], AsyncIterator[Finding]]


def url_place(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is spoken, of an address that has been checked."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return parts.hostname or "", parts.port or (443 if tls else 80), tls


def client_options(context: Context, ca: str | None, cert: str | None, key: str | None) -> ConnectionOptions:
    """How a server is reached straight, with certificates that the document names."""
    return ConnectionOptions(None, context.file(ca), context.file(cert), context.file(key))
