# The relay as a container image: see docs/howto/run-in-a-container.md.
#
#     docker build -t pyryrelay .
#
# Everything that is installed has the hashes of requirements/. The image needs no shell, no package manager and no
# write access to its root while it runs.

FROM python:3.13-slim-trixie AS build
WORKDIR /src
COPY requirements/ requirements/
RUN python -m venv /opt/build \
    && python -m venv --without-pip /opt/pyryrelay \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement requirements/build.txt \
    && /opt/build/bin/pip --python /opt/pyryrelay install --no-cache-dir --require-hashes --requirement requirements/runtime.txt
COPY . .
# The last command writes Twisted's plugin cache, which nobody can write later.
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/build/bin/pip --python /opt/pyryrelay install --no-cache-dir --no-deps --no-index /dist/*.whl \
    && /opt/pyryrelay/bin/twistd --help >/dev/null

FROM python:3.13-slim-trixie
COPY --from=build /opt/pyryrelay /opt/pyryrelay
COPY contrib/toml/container.toml /etc/pyryrelay.toml
RUN useradd --system --uid 65532 --user-group --no-create-home --shell /usr/sbin/nologin pyryrelay \
    && install --directory --owner=65532 --group=65532 --mode=0700 /var/lib/pyryrelay
ENV PATH=/opt/pyryrelay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /var/lib/pyryrelay
VOLUME /var/lib/pyryrelay
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/healthz', timeout=4)"]
ENTRYPOINT ["twistd", "--nodaemon", "--pidfile=", "pyryrelay", "--config", "/etc/pyryrelay.toml"]
