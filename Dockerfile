# Chatcorn with its model: docker build -t chatcorn . && docker run -p 7860:7860 -v chatcorn:/data chatcorn
# Read-only root: docker run --read-only --tmpfs /tmp ...   docs/containers.md has more, Hugging Face Spaces too.
# Settings are variables: -e REDIS_URL=redis://redis:6379 shares the rate limits of several containers,
# -e DATABASE_URL=postgres://... the sessions, -e CHAT_UPSTREAM=http://vllm:8000/v1 takes another engine; secrets as
# mounted files: -e HF_TOKEN_FILE=/run/secrets/hf_token.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake clang libclang-dev make g++ python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The model first: it changes least.
COPY bin/model bin/.common.sh bin/
RUN CHATCORN_CACHE=/cache bin/model
COPY . .
# The oldest processor that the image runs on; x86-64-v3 has AVX2 (2013 and later). On ARM: --build-arg TARGET_CPU=generic
ARG TARGET_CPU=x86-64-v3
RUN RUSTFLAGS="-C target-cpu=${TARGET_CPU}" CARGO_TARGET_DIR=/build cargo build --release --locked --bin chatcorn
# Line tables are seven eighths of the program; function names stay, so a crash report still says where.
RUN strip --strip-debug -o /chatcorn /build/release/chatcorn

FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /usr/sbin/nologin chatcorn \
    && install -d -o chatcorn -g chatcorn -m 0700 /data
COPY --from=build /chatcorn /usr/local/bin/chatcorn
COPY --from=build /cache/models/SmolLM2-135M-Instruct.Q4_1.gguf /usr/local/share/chatcorn/
COPY LICENSE-MIT LICENSE-APACHE /usr/local/share/doc/chatcorn/
USER 1000:1000
WORKDIR /home/chatcorn
# Below Docker's 10 s between TERM and KILL.
ENV MODEL=/usr/local/share/chatcorn/SmolLM2-135M-Instruct.Q4_1.gguf STATE_DIRECTORY=/data GRACEFUL_TIMEOUT=8
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["chatcorn", "healthcheck"]
ENTRYPOINT ["chatcorn"]
CMD ["serve"]
