# Charsmith: one image for the service and the worker. CPU by default; for a GPU build with
#   --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130
FROM python:3.11-slim-bookworm AS build
# PyTorch's own index of CPU builds: PyPI's build for Linux is the CUDA one, several gigabytes.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# `ray` for an image that can be a node of a Ray cluster, or its dispatcher.
ARG EXTRAS=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/charsmith
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
# The dependencies first, in a layer of their own that a change of the code leaves alone.
RUN torch=$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml) \
    && /opt/charsmith/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch" \
    && mkdir app worker models && touch app/__init__.py worker/__init__.py models/__init__.py \
    && /opt/charsmith/bin/pip install -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
    && /opt/charsmith/bin/pip uninstall --yes charsmith \
    # the packages' own tests, torch's C++ headers and its programs but one: 270 MB that nothing here reads
    && rm -rf /opt/charsmith/lib/python3*/site-packages/torch/test /opt/charsmith/lib/python3*/site-packages/torch/include \
        /opt/charsmith/lib/python3*/site-packages/onnx/backend/test \
    && find /opt/charsmith/lib/python3*/site-packages/torch/bin -type f ! -name torch_shm_manager -delete \
    && find /opt/charsmith/lib/python3*/site-packages -type d -name tests -prune -exec rm -rf {} +
COPY app app
COPY worker worker
COPY models models
RUN /opt/charsmith/bin/pip install --no-deps .

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 charsmith && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data charsmith \
    && mkdir -p /data/tmp && chown -R charsmith:charsmith /data
COPY --from=build /opt/charsmith /opt/charsmith
ENV PATH=/opt/charsmith/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    CHARSMITH_DATA_DIR=/data TMPDIR=/data/tmp MPLCONFIGDIR=/data/tmp/matplotlib
USER charsmith
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# Of the service; a container that is a worker alone is checked by `python -m worker.health`. Not urllib, which would ask a
# proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=6s --retries=6 --start-period=60s --start-interval=1s \
    CMD ["python", "-c", "import os, sys; from http.client import HTTPConnection; c = HTTPConnection('127.0.0.1', int(os.getenv('CHARSMITH_PORT') or 8000), timeout=5); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["charsmith", "serve"]
