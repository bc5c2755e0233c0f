FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="linkerd-tcp" \
      org.opencontainers.image.description="TCP and TLS load balancer fed by namerd" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY linkerd-tcp /linkerd-tcp
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["/linkerd-tcp"]
