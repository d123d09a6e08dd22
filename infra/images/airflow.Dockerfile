# The one image of all Airflow services. Build it at the top of the repository; with HARDWARE=gpu it also
# holds the CUDA libraries, which TensorFlow finds beside itself in site-packages.
FROM python:3.12.12-slim-bookworm
COPY requirements.lock /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock

# In one stage: without BuildKit a stage is built whether it is wanted or not, and CUDA takes 4 GB.
ARG HARDWARE=cpu
COPY requirements-gpu.lock /tmp/
RUN if [ "$HARDWARE" = gpu ]; then pip install --no-cache-dir --require-hashes -r /tmp/requirements-gpu.lock; fi
# A plain image says nothing to the NVIDIA container runtime; `compute` brings the driver's CUDA library in.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The code comes last and is the same for both, so that a change to it rebuilds no packages.
ENV PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    GIT_PYTHON_REFRESH=quiet \
    HOME=/home/cxr

# A named volume takes its owner from the folder it is first mounted over.
RUN useradd --uid 50000 --create-home --shell /bin/bash cxr \
    && install -d -o cxr -g cxr /opt/airflow /opt/airflow/logs /var/cache/cxr
COPY dags /opt/cxr/dags
COPY plugins /opt/cxr/plugins
COPY infra /opt/cxr/infra
COPY cxr_tasks /opt/cxr/cxr_tasks
COPY pyproject.toml LICENSE /opt/cxr/
# What DAGs import comes from site-packages, wherever the DAGs themselves come from: this folder, or a checkout that is
# kept up to date beside the image.
RUN pip install --no-cache-dir --no-index --no-deps --no-build-isolation /opt/cxr \
    && rm -rf /opt/cxr/build /opt/cxr/cxr_mlops.egg-info

USER cxr
WORKDIR /opt/airflow
CMD ["airflow", "version"]
