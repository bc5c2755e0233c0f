# apply
ip -4 route replace local 0.0.0.0/0 dev lo table 100
out=$(ip -4 rule add pref 7089 fwmark 0x1/0x1 lookup 100 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
ip -6 route replace local ::/0 dev lo table 100
out=$(ip -6 rule add pref 7089 fwmark 0x1/0x1 lookup 100 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
nft -f - <<'END'
table inet meshlib_tproxy
delete table inet meshlib_tproxy
table inet meshlib_tproxy {
  chain raw_out {
    type filter hook output priority raw; policy accept;
    meta l4proto tcp meta mark & 0x00000001 == 0x00000001 notrack
  }
  chain raw_pre {
    type filter hook prerouting priority raw; policy accept;
    meta l4proto tcp meta mark & 0x00000001 == 0x00000001 notrack
  }
  chain pre {
    type filter hook prerouting priority mangle; policy accept;
    iifname "lo" return
    fib daddr type != local return
    tcp flags != syn / fin,syn,rst,ack socket wildcard 0 accept
    meta nfproto ipv4 meta l4proto tcp tproxy ip to :5000 accept
    meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :5000 accept
  }
}
END
# tidy
ip -4 rule del pref 7089 iif lo from 127.0.0.0/8 lookup 100 2>/dev/null || :
ip -6 rule del pref 7089 iif lo from ::1/128 lookup 100 2>/dev/null || :
# release
nft insert rule inet meshlib_tproxy pre return 2>/dev/null || :
