# Two images from one file. The second was NOT built where this was written: no GPU, no Docker there.
#
#   CPU, EmbreeSim:     docker build --target cpu -t memo-habitat .
#                       docker run --rm -v "$PWD/runs:/work/runs" memo-habitat
#   GPU, Habitat-Sim:   docker build -t memo-habitat:gpu .
#                       docker run --rm --gpus all --ipc=host -v "$PWD/runs:/work/runs" memo-habitat:gpu doctor

FROM python:3.11-slim AS cpu

# OpenCV, which Habitat imports, wants libGL and GLib; git gives the revision for run.json.
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/memo-habitat
COPY . .
RUN pip install --no-cache-dir .

WORKDIR /work
ENTRYPOINT ["memo-habitat"]
CMD ["quickstart"]


FROM mambaorg/micromamba:2-cuda12.6.3-ubuntu22.04 AS gpu

# EGL through glvnd: the driver's own libraries come from the host, at `docker run --gpus`.
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git libegl1 libgl1 libglib2.0-0 libopengl0 make \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /usr/share/glvnd/egl_vendor.d \
    && echo '{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}' \
       > /usr/share/glvnd/egl_vendor.d/10_nvidia.json
# The container toolkit leaves out what draws unless it is asked for.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all
ENV MAGNUM_LOG=quiet HABITAT_SIM_LOG=quiet

# Habitat-Lab 0.3.4 needs Habitat-Sim 0.3.4, with Bullet, which the small objects of a home need.
RUN micromamba install -y -n base -c conda-forge -c aihabitat \
        python=3.11 pip 'habitat-sim>=0.3.4' headless withbullet \
    && micromamba clean -ay
ARG MAMBA_DOCKERFILE_ACTIVATE=1

WORKDIR /opt/memo-habitat
COPY . .
# Habitat-Sim asks for numpy 2, Habitat-Lab for 1.26.4; both run with the latter, which pip leaves last.
RUN pip install --no-cache-dir '.[hub,timm]' && python -c "import habitat_sim, memo_habitat.register"

WORKDIR /work
ENTRYPOINT ["/usr/local/bin/_entrypoint.sh", "memo-habitat"]
CMD ["doctor"]
