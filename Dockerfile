# One image for the operator, the admission webhook and the decision webhook beside each agent.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src

# What it needs, as wheels with known hashes: nothing is compiled here.
COPY requirements/bootstrap.txt requirements/image.txt requirements/
RUN python -m venv /tools \
 && /tools/bin/pip install --require-hashes --requirement requirements/bootstrap.txt \
 && python -m venv --without-pip /opt/fleetward \
 && /tools/bin/uv pip install --no-cache --python /opt/fleetward --compile-bytecode \
      --only-binary :all: --require-hashes --requirement requirements/image.txt

COPY pyproject.toml README.md LICENSE ./
COPY fleetward fleetward
COPY operator operator
COPY webhook webhook
RUN /tools/bin/uv build --python /tools --no-build-isolation --wheel --out-dir /wheels \
 && /tools/bin/uv pip install --no-cache --python /opt/fleetward --compile-bytecode --no-deps /wheels/*.whl

FROM python:3.11-slim
# Nothing that installs or builds is left.
RUN python -m pip uninstall --yes --root-user-action ignore pip setuptools wheel
COPY --from=build /opt/fleetward /opt/fleetward
ENV PATH=/opt/fleetward/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# By number, so that runAsNonRoot can tell; no such user need exist.
USER 65532:65532
WORKDIR /
# Injected containers give no command: the image by itself is the decision webhook.
ENTRYPOINT ["fleetward-webhook"]
