# CPU image: docker build -t memo-habitat . && docker run --rm -v "$PWD/runs:/work/runs" memo-habitat
# For a GPU: docker run --gpus all ...; the torch wheel on PyPI carries CUDA.
FROM python:3.11-slim

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
