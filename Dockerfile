# Two stages: the first installs as `make run` does, the second only runs. Nothing is compiled: every package is a wheel.
#
#   docker run --read-only --tmpfs /tmp -p 8080:8080 -v "$PWD/config.yaml:/etc/sluice/config.yaml:ro" sluice
FROM python:3.12-slim AS build
WORKDIR /app
COPY sluice ./
COPY tools/environment tools/environment.py tools/
COPY requirements/run.txt requirements/
# Before the code: its layer is kept until the lock changes.
RUN ./sluice --setup
COPY LICENSE ./
COPY access/ access/
COPY config/ config/
COPY core/ core/
COPY credentials/ credentials/
COPY gateway/ gateway/
COPY management/ management/
COPY proxy/ proxy/
COPY routing/ routing/
COPY storage/ storage/
COPY telemetry/ telemetry/
COPY transport/ transport/
COPY webhooks/ webhooks/
# The root may be read-only: nothing can be compiled later.
RUN .venv/bin/python -m compileall -q access config core credentials gateway management proxy routing storage telemetry transport webhooks

FROM python:3.12-slim
WORKDIR /app
COPY --from=build /app /app
ENV PYTHONDONTWRITEBYTECODE=1
# A number, so that an orchestrator can see that it is not root. Owns nothing of /app.
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["./sluice", "health", "--live"]
ENTRYPOINT ["./sluice"]
CMD ["serve", "--config", "/etc/sluice/config.yaml", "--listen", "0.0.0.0:8080"]
