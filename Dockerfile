# syntax=docker/dockerfile:1
# One image for the four services, the verbs and the provider simulator.

FROM rust:1.95-trixie AS chef
# Builds the dependencies in a layer of their own: a change of ours doesn't build librdkafka and OpenSSL again.
RUN cargo install --locked cargo-chef@0.1.78
WORKDIR /build

FROM chef AS sources
# By name, and every directory that a member of the workspace lies in: what is in a checkout beside its sources (.env,
# .local, target) never comes near an image.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY .sqlx .sqlx
COPY kafka kafka
COPY migrations migrations
COPY shared shared
COPY services services
COPY tests tests
COPY bench bench

FROM sources AS planner
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS builder
COPY --from=planner /build/recipe.json .
RUN cargo chef cook --release --locked --package herald --package provider-sim --features herald/tls
COPY --from=sources /build .
RUN cargo build --release --locked --package herald --package provider-sim --features herald/tls

FROM debian:trixie-slim
# For the provider's and Kafka's certificates.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=builder /build/target/release/herald /build/target/release/provider-sim /usr/local/bin/
COPY LICENSE /usr/share/doc/herald/
USER 10001:10001
ENTRYPOINT ["herald"]
CMD ["--help"]
