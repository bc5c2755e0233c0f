# linkerd-tcp on every node of a site, as a Nomad job. The file system of the container is read-only; nothing is kept.
job "linkerd-tcp" {
  datacenters = ["dc1"]
  type        = "system"
  priority    = 90

  update {
    # One node after the other, with time for the one before to become ready.
    max_parallel = 1
    stagger      = "30s"
  }

  group "balancer" {
    network {
      port "web"   { static = 7474 }
      port "admin" { static = 9989 }
    }

    task "linkerd-tcp" {
      driver      = "docker"
      kill_signal = "SIGTERM"
      # Longer than --drain, and not more than the client's max_kill_timeout, which is 30s unless its configuration says
      # otherwise: Nomad shortens it to that without a word.
      kill_timeout = "25s"

      config {
        # As built by `./dockerize 0.1.0`. A tag of its own for each build: Nomad pulls `latest` again and again, and a node
        # cannot go back to the one before.
        image           = "linkerd/linkerd-tcp:0.1.0"
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["ALL"]
        # Not 0.0.0.0: whoever reaches the admin pages may end the program there (POST /shutdown). If the node's default
        # address is a public one, give the port above a host_network of the clients' configuration that is not.
        args = [
          "--drain=20s",
          "--admin=${NOMAD_IP_admin}:${NOMAD_PORT_admin}",
          "${NOMAD_TASK_DIR}/linkerd-tcp.yml",
        ]
      }

      env {
        RUST_LOG = "linkerd_tcp=info"
      }

      # The services of a node reach /svc/web at port 7474 of its loopback address; namerd is asked at the node's own.
      template {
        destination = "local/linkerd-tcp.yml"
        # The file is read at the start.
        change_mode = "restart"
        data        = <<EOF
routers:
  - label: web
    servers:
      - ip: 127.0.0.1
        port: 7474
        dstName: /svc/web
    interpreter:
      kind: io.l5d.namerd.http
      baseUrl: http://127.0.0.1:4180
      namespace: default
      periodSecs: 10
EOF
      }

      resources {
        cpu    = 200
        memory = 128
      }

      service {
        name = "linkerd-tcp-admin"
        port = "admin"

        check {
          type     = "http"
          path     = "/ready"
          interval = "5s"
          timeout  = "2s"
        }
      }
    }
  }
}
