# One image for every node of a cluster, for cluster.yaml and jobs/rayjob.yaml alike:
#
#   docker build --tag your-registry/catdog:0.1.0-ray2.60.0-py311 .
#
# Ray's image without CUDA is the right base: the extra `gpu` brings the CUDA libraries that this
# TensorFlow was built for, so the node gives only NVIDIA's driver, and no second CUDA lies in the
# library path.
ARG RAY_VERSION=2.60.0
ARG PYTHON_TAG=py311
FROM rayproject/ray:${RAY_VERSION}-${PYTHON_TAG}-cpu

# Ray's own user, not root (its number is what the manifests name).
USER 1000
WORKDIR /home/ray/catdog

# The dependencies alone: this layer stays while only the code changes. boto3 and Google's client
# are for the autoscaler on the head.
COPY --chown=1000:100 pyproject.toml constraints.txt README.md LICENSE NOTICE ./
RUN mkdir catdog \
    && python -m pip install --no-cache-dir --upgrade --constraint constraints.txt pip \
    && python -m pip install --no-cache-dir --constraint constraints.txt \
        --build-constraint constraints.txt '.[gpu,aws,gcp]'

COPY --chown=1000:100 catdog ./catdog
COPY --chown=1000:100 jobs ./jobs
RUN python -m pip install --no-cache-dir --no-deps --force-reinstall \
        --build-constraint constraints.txt . \
    && python -m pip check

# A container that is not told otherwise sees all GPUs of its node, and no Ray starts without a
# token.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    TF_CPP_MIN_LOG_LEVEL=2
