# One small image for all services: what stands behind its name is the subcommand, `gateway`, `fanout-worker` and so on.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --tag tidings:0.1.0 .
#
# Built with BuildKit, which builds only the stages that lead to the last one. With BINARY=given nothing is compiled: the
# build context is a folder with the program, which needs a glibc no newer than that of BASE.

ARG RUST=rust:1.95.0-bookworm
# glibc, libgcc and root certificates; no shell, nothing to log in to. Runs as user 65532.
ARG BASE=gcr.io/distroless/cc-debian12:nonroot
ARG BINARY=compiled

FROM ${RUST} AS compiled
WORKDIR /src
COPY . .
# Names of functions stay for backtraces; lines would be four times the size.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --package tidings-cli \
    && objcopy --strip-debug target/release/tidings /tidings

FROM scratch AS given
COPY tidings /tidings

FROM ${BINARY} AS binary
# Empty folders, since nothing in the last stage could make them: a named volume takes owner and contents from here.
WORKDIR /data/attachments
WORKDIR /data/spool

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tidings" \
      org.opencontainers.image.description="A messaging backend on NATS JetStream" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=binary /tidings /usr/local/bin/tidings
COPY --from=binary --chown=65532:65532 /data /var/lib/tidings
USER 65532:65532
# Reached by probes and Prometheus in the containers' network; never publish it.
ENV TIDINGS_ADMIN_LISTEN=0.0.0.0:9100
EXPOSE 8080 8081 9100
# Ready, not only alive: who depends on a service waits for this.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/tidings", "health"]
ENTRYPOINT ["/usr/local/bin/tidings"]
CMD ["--help"]
