# apply
ip -6 route replace local ::/0 dev lo table 100
out=$(ip -6 rule add pref 7089 fwmark 0x1/0x1 lookup 100 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
out=$(ip -6 rule add pref 7089 iif lo from ::1/128 lookup 100 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
nft -f - <<'END'
table inet meshlib_tproxy
delete table inet meshlib_tproxy
table inet meshlib_tproxy {
  chain out {
    type route hook output priority mangle; policy accept;
    meta nfproto != ipv6 return
    meta l4proto tcp meta mark & 0x00000001 == 0x00000001 ct mark set ct mark | 0x00000001
    meta l4proto tcp ct mark & 0x00000001 == 0x00000001 meta mark set meta mark | 0x00000001
  }
  chain pre {
    type nat hook prerouting priority dstnat; policy accept;
    meta nfproto != ipv6 return
    iifname "lo" return
    meta nfproto ipv6 meta l4proto tcp dnat ip6 to [fd77::3]:6000
  }
}
END
# tidy
ip -4 rule del pref 7089 fwmark 0x1/0x1 lookup 100 2>/dev/null || :
ip -4 rule del pref 7089 iif lo from 127.0.0.0/8 lookup 100 2>/dev/null || :
ip -4 route del local 0.0.0.0/0 dev lo table 100 2>/dev/null || :
# release
nft insert rule inet meshlib_tproxy pre return 2>/dev/null || :
