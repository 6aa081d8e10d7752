# Quad as a container image: `docker build -t quad .`; docker-compose.yml runs its services.
# The builder and the runtime are the same Debian release, so that glibc, OpenSSL and unixODBC agree.

FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends pkg-config libssl-dev zlib1g-dev unixodbc-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# The caches outlive the build: a change in Quad's own crates does not compile its dependencies again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked -p quad \
    && install -D target/release/quad /out/quad

FROM debian:bookworm-slim
# The ODBC driver manager and the drivers that Debian has. Add others (Oracle, SQL Server, DM, Kingbase) in an image
# `FROM` this one, and register them in /etc/odbcinst.ini.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates libssl3 zlib1g unixodbc odbc-postgresql odbc-mariadb libsqliteodbc \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 quad \
    && useradd --system --uid 10001 --gid quad --no-create-home --shell /usr/sbin/nologin quad

# Contracts, connectors and profile sections stay files, where the settings' defaults look for them: mount your own over them.
WORKDIR /opt/quad
COPY --from=build /out/quad /usr/local/bin/quad
COPY schemas/contracts schemas/contracts
COPY schemas/codes schemas/codes
COPY ingest/connectors ingest/connectors
COPY query/profile query/profile

# Named volumes take the owner of the folder they cover.
RUN mkdir -p data/lake data/extract data/query data/topic && chown -R quad:quad data
USER quad
# The PostgreSQL ODBC driver crashes in a process that has no home folder set.
ENV HOME=/opt/quad
ENTRYPOINT ["quad"]
CMD ["up"]
