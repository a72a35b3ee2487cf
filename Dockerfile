# Two images of one distribution:
#
#   docker build --target api    -t whylight-api    .    gateway and command, without torch
#   docker build --target worker -t whylight-worker .    the production line
#
# TORCH is what pip installs as torch. The default is the wheel that your index
# serves for this platform; for a small CPU-only image name a CPU build, with
# pip's own options for the index that has it; for a GPU name a CUDA build.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/whylight/venv/bin:$PATH
# A fixed number, so that volumes keep their owner from one image to the next.
RUN groupadd --gid 10001 whylight \
 && useradd --uid 10001 --gid whylight --home-dir /var/lib/whylight --no-create-home \
    --shell /usr/sbin/nologin whylight \
 && install -d -m 700 -o whylight -g whylight /var/lib/whylight /var/lib/whylight-scratch
RUN python -m venv /opt/whylight/venv
WORKDIR /opt/whylight/source
COPY pyproject.toml README.md LICENSE ./

FROM base AS api
COPY service ./service
COPY api ./api
COPY workers ./workers
COPY models ./models
RUN pip install .
USER whylight
WORKDIR /var/lib/whylight
ENV WHYLIGHT_HTTP__HOST=0.0.0.0 \
    WHYLIGHT_STORE__URL=file:///var/lib/whylight
EXPOSE 8080 9464
VOLUME /var/lib/whylight
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "service.command.main", "check", "gateway"]
CMD ["python", "-m", "api.main"]

FROM base AS worker
ARG TORCH="torch==2.13.0"
RUN pip install ${TORCH}
COPY service ./service
COPY api ./api
COPY workers ./workers
COPY models ./models
RUN pip install '.[worker,monai]'
USER whylight
WORKDIR /var/lib/whylight
ENV WHYLIGHT_STORE__URL=file:///var/lib/whylight \
    OMP_NUM_THREADS=1
EXPOSE 9465
VOLUME /var/lib/whylight
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=90s --retries=3 \
    CMD ["python", "-m", "service.command.main", "check", "redis", "worker"]
CMD ["python", "-m", "workers.main"]
