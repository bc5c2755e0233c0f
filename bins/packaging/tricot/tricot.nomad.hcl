# tricot on every node of a site, as a Nomad job. The file system of the container is read-only; nothing is kept on disk.
job "tricot" {
  datacenters = ["dc1"]
  type        = "system"
  priority    = 90

  update {
    # One node after the other: the others serve meanwhile.
    max_parallel     = 1
    min_healthy_time = "10s"
  }

  group "edge" {
    network {
      port "http"    { static = 80 }
      port "https"   { static = 443 }
      port "metrics" { static = 9334 }
    }

    task "tricot" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      # Longer than TRICOT_SHUTDOWN_GRACE.
      kill_timeout = "40s"

      config {
        image           = "tricot:latest"
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["ALL"]
        cap_add         = ["NET_BIND_SERVICE"]
      }

      env {
        TRICOT_LETSENCRYPT_EMAIL = "admin@example.com"
        TRICOT_NODE_NAME         = "${attr.unique.hostname}"
        TRICOT_CONSUL_HOST       = "http://127.0.0.1:8500"
        TRICOT_HTTP_BIND_ADDR    = "[::]:80"
        TRICOT_HTTPS_BIND_ADDR   = "[::]:443"
        TRICOT_METRICS_BIND_ADDR = "[::]:9334"
        TRICOT_ENABLE_COMPRESSION = "true"
        RUST_LOG                 = "tricot=info"
      }

      resources {
        cpu    = 500
        memory = 256
      }

      service {
        name = "tricot-metrics"
        port = "metrics"

        # Turns red as soon as tricot drains, before it takes no more connections.
        check {
          type     = "http"
          path     = "/healthz"
          interval = "5s"
          timeout  = "2s"
        }
      }
    }
  }
}
