# docker build -t sam2-label-studio .
# For a GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 ...
# and `docker run --gpus all`; the host needs the NVIDIA container toolkit.
FROM python:3.11-slim AS build
# PyTorch's own index: the torch of PyPI brings gigabytes of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY constraints.txt requirements.lock ./
# By hash, all but PyTorch, whose build is the machine's.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock \
    && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt --index-url ${TORCH_INDEX} torch
COPY pyproject.toml README.md LICENSE ./
COPY converters converters
COPY sam2_model sam2_model
COPY backend backend
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/venv/bin/pip check
# What the settings of some need beside: s3fs for SAM2_STORAGE=s3://...
ARG EXTRA_PACKAGES=""
RUN test -z "${EXTRA_PACKAGES}" || /opt/venv/bin/pip install --no-cache-dir ${EXTRA_PACKAGES}

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 annotator \
    && install -d -o annotator /data
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SAM2_CACHE=/data
USER 10001
# Checkpoints, downloaded media, jobs and results.
VOLUME /data
EXPOSE 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/health', timeout=2)"]
CMD ["sam2-label-studio", "serve", "--host", "0.0.0.0", "--port", "9090"]
