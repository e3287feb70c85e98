# The service as an image: docker build -f Dockerfile service/ (BuildKit; the context is the directory of the service).
# The final image starts from nothing: an interpreter, the libraries that are linked to, and the service. Why, and what
# it weighs: docs/decisions/0009-an-image-from-nothing.md.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
ENV PIP_NO_COMPILE=1 PIP_NO_BUILD_ISOLATION=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Where packages come from, for those who have a mirror: docker build --secret id=pip_conf,src=pip.conf. Stays in no layer.
ENV PIP_CONFIG_FILE=/run/secrets/pip_conf

# What builds: a compiler for the dependency that has no wheel for every platform, and build backends, locked by hash.
FROM base AS builder
# hadolint ignore=DL3008
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=image/requirements.txt,target=/requirements.txt \
    --mount=type=secret,id=pip_conf --mount=type=secret,id=pip_cert --mount=type=secret,id=pip_client_cert \
    pip install --require-hashes --requirement /requirements.txt && python3 -m venv --without-pip /opt/venv
# No debug information: it would hold the names of temporary directories.
ENV CFLAGS="-O2 -g0" SOURCE_DATE_EPOCH=315532800

# The dependencies, locked by hash: changes with the lock, not with the code.
FROM builder AS dependencies
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=requirements.txt,target=/requirements.txt \
    --mount=type=secret,id=pip_conf --mount=type=secret,id=pip_cert --mount=type=secret,id=pip_client_cert \
    pip wheel --no-deps --require-hashes --requirement /requirements.txt --wheel-dir /wheels \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl
RUN --mount=type=bind,source=image/finish.py,target=/finish.py \
    mkdir -p /dependencies/opt && cp -a /opt/venv /dependencies/opt/ \
    && find /dependencies -name '*.so' -exec strip --strip-unneeded {} + && python3 /finish.py /dependencies

# The service itself, built by its own backend.
FROM builder AS service
COPY . /context
RUN pip wheel --no-deps --no-index --wheel-dir /wheels /context \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --no-index --root /service /wheels/*.whl \
    && install -m 755 /context/image/healthcheck.py /service/opt/venv/bin/titanic-healthcheck \
    && python3 /context/image/finish.py /service

# The interpreter and the libraries that it, or a dependency, is linked to: changes with the base image.
FROM base AS root
RUN --mount=type=bind,source=image,target=/image --mount=type=bind,from=dependencies,source=/dependencies,target=/dependencies \
    python3 /image/root.py /root.new /dependencies && python3 /image/finish.py /root.new

# For those who work on the service: the source is mounted at /srv, and each change of it is served at once.
FROM base AS development
COPY --from=dependencies /dependencies/ /
COPY . /srv
ENV PYTHONPATH=/srv/src PYTHONUNBUFFERED=1
WORKDIR /srv
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["python", "/srv/image/development.py"]

# What is in the image, told in a file: docker build --target sbom --output DIRECTORY. The image does not rest on it.
FROM base AS bill
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=image/sbom.txt,target=/requirements.txt \
    --mount=type=secret,id=pip_conf --mount=type=secret,id=pip_cert --mount=type=secret,id=pip_client_cert \
    pip install --require-hashes --requirement /requirements.txt
RUN --mount=type=bind,source=image/sbom.py,target=/sbom.py \
    --mount=type=bind,from=root,source=/root.new,target=/image/root \
    --mount=type=bind,from=dependencies,source=/dependencies,target=/image/dependencies \
    --mount=type=bind,from=service,source=/service,target=/image/service \
    --mount=type=bind,from=dependencies,source=/wheels,target=/wheels/dependencies \
    --mount=type=bind,from=service,source=/wheels,target=/wheels/service \
    python3 /sbom.py /image /wheels /sbom.cdx.json
FROM scratch AS sbom
COPY --from=bill /sbom.cdx.json /

FROM scratch
COPY --link --from=root /root.new/ /
COPY --link --from=dependencies /dependencies/ /
COPY --link --from=service /service/ /
ENV PATH=/opt/venv/bin:/usr/local/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt TITANIC_METRICS_DIRECTORY=/dev/shm/titanic-metrics
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-IS", "/opt/venv/bin/titanic-healthcheck"]
CMD ["titanic-api", "serve"]
ARG PYTHON_IMAGE
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG SOURCE=https://github.com/whitestar/titanic
ARG CREATED=1980-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Titanic API" \
    org.opencontainers.image.description="The Titanic passengers as a REST API" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"
