# syntax=docker/dockerfile:1
# Moesaic's images. `cpu` (the default target) serves on any x86-64 machine.
#   docker build -t moesaic .
#   docker run --rm -p 8001:8001 -v /path/to/model:/models/model:ro moesaic --model /models/model
# The GPU image is the same two stages with the CUDA toolkit's packages and -DMOESAIC_CUDA=ON.
ARG BASE=debian:12

FROM ${BASE} AS build
WORKDIR /src
COPY scripts/bootstrap.sh scripts/packages.txt scripts/
RUN apt-get update -qq && scripts/bootstrap.sh && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cmake --preset release -DMOESAIC_TESTS=OFF -DMOESAIC_BENCHMARKS=OFF && \
    cmake --build build --target moesaic-server moesaic-cli && \
    strip build/bin/moesaic-server build/bin/moesaic-cli && \
    scripts/runtime_packages.sh build/bin/moesaic-server build/bin/moesaic-cli >build/runtime-packages.txt

FROM ${BASE} AS cpu
COPY --from=build /src/build/runtime-packages.txt /tmp/
RUN apt-get update -qq && \
    apt-get install -y -qq --no-install-recommends tini $(cat /tmp/runtime-packages.txt) && \
    rm -rf /var/lib/apt/lists/* /tmp/runtime-packages.txt && \
    useradd --uid 1000 --user-group --no-create-home --shell /usr/sbin/nologin moesaic
COPY --from=build /src/build/bin/moesaic-server /src/build/bin/moesaic-cli /usr/local/bin/
COPY --from=build /src/models/wordnet-moe /models/wordnet-moe
COPY --from=build /src/LICENSE /usr/share/doc/moesaic/
USER moesaic
EXPOSE 8001 8002
ENV MOESAIC_MODEL=/models/wordnet-moe MOESAIC_BIND=0.0.0.0
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["moesaic-server", "--healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "moesaic-server"]
