# The stages in a container. data/ and outputs/ are written below /workspace, so mount a folder there:
#     docker build -t teachback .
#     docker run --rm --gpus all -v "$PWD:/workspace" -e CONFIG=configs/sample.sh teachback run 3_train_teacher
# On Linux x86-64 the packages of torch bring CUDA along. A small image for processors alone takes PyTorch's index of CPU builds,
# whose address its page of installs names:
#     docker build -t teachback:cpu --build-arg TORCH_INDEX=<address> .
# For a system image with CUDA's own tools: --build-arg BASE=<image with Python 3.11 or newer>
ARG BASE=python:3.11-slim
FROM ${BASE}

ARG TORCH_INDEX=
WORKDIR /opt/teachback
COPY requirements.txt requirements-export.txt requirements-dev.txt requirements.lock requirements-dev.lock ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.txt)" \
    && pip install --no-cache-dir --no-deps --require-hashes --requirement requirements.lock --requirement requirements-dev.lock
COPY . .
RUN pip install --no-cache-dir --no-deps .

ENV HF_HOME=/workspace/.cache/huggingface MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /workspace
ENTRYPOINT ["teachback"]
