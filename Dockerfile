# deepjudge in a container, without root. docs/start/install.md says how to run it, and what its sandbox needs.
#
#     docker build -t deepjudge .
#     docker build -t deepjudge --build-arg EXTRAS=onnx,tensorflow .

FROM python:3.11-slim-bookworm AS build
# PyTorch's builds for CPUs; those of PyPI bring gigabytes of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=onnx,torch,images
RUN python -m venv /opt/deepjudge
WORKDIR /source
COPY . .
RUN /opt/deepjudge/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
    --extra-index-url "$TORCH_INDEX" --constraint constraints.txt ".[$EXTRAS]"

FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 1000 deepjudge && install --directory --owner=deepjudge --group=deepjudge /work
COPY --from=build /opt/deepjudge /opt/deepjudge
ENV PATH="/opt/deepjudge/bin:$PATH"
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["deepjudge"]
CMD ["--help"]
