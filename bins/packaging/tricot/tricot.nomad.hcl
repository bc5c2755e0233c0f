# tricot on every node of a site, as a Nomad job. The file system of the container is read-only; nothing is kept on disk.
job "tricot" {
  datacenters = ["dc1"]
  type        = "system"
  priority    = 90

  update {
    # One node after the other, with time for the one before to take its first connections: the others serve meanwhile.
    # What else there is under `update` does nothing for jobs of type system.
    max_parallel = 1
    stagger      = "30s"
  }

  group "edge" {
    network {
      port "http"    { static = 80 }
      port "https"   { static = 443 }
      port "metrics" { static = 9334 }
    }

    task "tricot" {
      driver      = "docker"
      kill_signal = "SIGTERM"
      # Longer than TRICOT_SHUTDOWN_GRACE below and the 6s that giving locks back may take, and not more than the client's max_kill_timeout, which is 30s unless its
      # configuration says otherwise: Nomad shortens it to that without a word.
      kill_timeout = "30s"

      config {
        # As built by `bins/packaging/tricot/image 0.1.0`. A tag of its own for each build: Nomad pulls `latest` again and
        # again, and a node cannot go back to the one before.
        image           = "tricot:0.1.0"
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["ALL"]
        cap_add         = ["NET_BIND_SERVICE"]
      }

      env {
        TRICOT_LETSENCRYPT_EMAIL  = "admin@example.com"
        TRICOT_NODE_NAME          = "${attr.unique.consul.name}"
        TRICOT_CONSUL_HOST        = "http://127.0.0.1:8500"
        TRICOT_HTTP_BIND_ADDR     = "[::]:80"
        TRICOT_HTTPS_BIND_ADDR    = "[::]:443"
        # Not [::]: the network of the public would read it, too. If the node's default address is a public one, give the
        # port above a host_network of the clients' configuration that is not.
        TRICOT_METRICS_BIND_ADDR  = "${NOMAD_IP_metrics}:${NOMAD_PORT_metrics}"
        TRICOT_SHUTDOWN_GRACE     = "20s"
        TRICOT_ENABLE_COMPRESSION = "true"
        RUST_LOG                  = "tricot=info"
        # With the template below:
        #TRICOT_CONSUL_TOKEN_FILE = "${NOMAD_SECRETS_DIR}/consul-token"
      }

      # Where Consul has ACLs. Not under `env`: whoever may read the job reads that. HUP has the file read again.
      #template {
      #  data          = "{{ with nomadVar \"nomad/jobs/tricot\" }}{{ .consul_token }}{{ end }}"
      #  destination   = "${NOMAD_SECRETS_DIR}/consul-token"
      #  change_mode   = "signal"
      #  change_signal = "SIGHUP"
      #}

      resources {
        cpu    = 500
        memory = 256
      }

      service {
        name = "tricot-metrics"
        port = "metrics"

        # Red from TERM on, and the ports for HTTP and HTTPS close at that same moment: what balances over nodes must try
        # another one when a connection is refused.
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
