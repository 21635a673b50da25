# The container of every job: docker build -t tfscale .       GPUs: --build-arg ACCELERATOR=gpu
# Arguments are the program's: docker run tfscale train +recipe=resnet
ARG BASE=python:3.11-slim-bookworm

# What is installed, gigabytes that a change of code doesn't touch. pip's own bytecode says when its source was written, to
# a fraction of a second that an image doesn't keep: it would count as stale, and every start would compile TensorFlow.
FROM ${BASE} AS dependencies
ARG ACCELERATOR=cpu
ARG EXTRAS="mlflow digits tables images s3 gcs"
COPY pyproject.toml constraints.txt /source/
RUN python3 -m venv /opt/tfscale
RUN python3 -c "import tomllib; p = tomllib.load(open('/source/pyproject.toml', 'rb'))['project']; \
        wanted = '${EXTRAS}'.split() + (['gpu'] if '${ACCELERATOR}' == 'gpu' else []); \
        print(*p['dependencies'], *(r for e in wanted for r in p['optional-dependencies'][e]), sep='\n')" \
        > /source/requirements.txt \
    && /opt/tfscale/bin/pip install --no-cache-dir --no-compile -c /source/constraints.txt -r /source/requirements.txt \
    && { /opt/tfscale/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/tfscale/lib || true; }

FROM dependencies AS wheel
COPY . /source/
RUN /opt/tfscale/bin/pip wheel --no-cache-dir --no-deps -w /wheel /source

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tfscale" \
      org.opencontainers.image.description="Hardware-aware TensorFlow training of Keras 3 models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The init reaps children and passes signals on: a process with number 1 would not be ended by those it doesn't handle.
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 tfscale && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp tfscale \
    && mkdir -p /work/runs /work/data && chown -R 65532:65532 /work
COPY --from=dependencies /opt/tfscale /opt/tfscale
COPY --from=wheel /wheel /wheel
RUN /opt/tfscale/bin/pip install --no-cache-dir --no-compile --no-deps --no-index /wheel/*.whl && rm -rf /wheel \
    && /opt/tfscale/bin/python -m compileall -q --invalidation-mode checked-hash /opt/tfscale/lib/python3*/site-packages/tfscale
# The driver's parts that a GPU's runtime mounts; the rest comes with the extra gpu.
ENV PATH=/opt/tfscale/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GIT_PYTHON_REFRESH=quiet \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
WORKDIR /work
ENTRYPOINT ["tini", "--", "tfscale"]
CMD ["--help"]
