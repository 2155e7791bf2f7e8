# Two images from one file. The one for GPUs has NOT been built yet, and nothing in it was tried.
#
#   CPU, EmbreeSim:     docker build -t memo-habitat .
#                       docker run --rm -v "$PWD/runs:/work/runs" memo-habitat
#   GPU, Habitat-Sim:   docker build --target gpu -t memo-habitat:gpu .
#                       docker run --rm --gpus all --ipc=host -v "$PWD/runs:/work/runs" memo-habitat:gpu

FROM nvidia/cuda:12.6.3-runtime-ubuntu22.04 AS gpu

# EGL through glvnd: the driver's own libraries come from the host, at `docker run --gpus`.
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
COPY --from=mambaorg/micromamba:2 /bin/micromamba /usr/local/bin/micromamba
RUN micromamba create -y -p /opt/conda -c conda-forge -c aihabitat \
        python=3.11 pip 'habitat-sim>=0.3.4' headless withbullet \
    && micromamba clean -ay
ENV PATH=/opt/conda/bin:$PATH

WORKDIR /opt/memo-habitat
COPY . .
# Habitat-Sim asks for numpy 2, Habitat-Lab for 1.26.4; both run with the latter, which pip leaves last.
RUN pip install --no-cache-dir '.[hub,timm]' && python -c "import habitat_sim, memo_habitat.register"

WORKDIR /work
ENTRYPOINT ["memo-habitat"]
CMD ["doctor"]


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
