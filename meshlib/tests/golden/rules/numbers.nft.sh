# apply
ip -4 route replace local 0.0.0.0/0 dev lo table 4143
out=$(ip -4 rule add pref 99 fwmark 0x100/0x100 lookup 4143 2>&1) || case $out in *'File exists'*) ;; *) echo "$out" >&2; exit 1 ;; esac
nft -f - <<'END'
table inet meshlib_tproxy
delete table inet meshlib_tproxy
table inet meshlib_tproxy {
  chain guard {
    type filter hook prerouting priority mangle; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
  }
  chain raw_out {
    type filter hook output priority raw; policy accept;
    meta nfproto != ipv4 return
    meta l4proto tcp meta mark & 0x00000100 == 0x00000100 notrack comment "switched on: net.ipv4.tcp_fwmark_accept net.ipv4.fwmark_reflect net.ipv6.fwmark_reflect"
  }
  chain raw_pre {
    type filter hook prerouting priority raw; policy accept;
    meta nfproto != ipv4 return
    meta l4proto tcp meta mark & 0x00000100 == 0x00000100 notrack
  }
  chain pre {
    type nat hook prerouting priority dstnat; policy accept;
    meta nfproto != ipv4 return
    iifname "lo" return
    meta nfproto ipv4 meta l4proto tcp redirect to :4143
  }
}
END
# tidy
ip -4 rule del pref 99 iif lo from 127.0.0.0/8 lookup 4143 2>/dev/null || :
ip -6 rule del pref 99 fwmark 0x100/0x100 lookup 4143 2>/dev/null || :
ip -6 rule del pref 99 iif lo from ::1/128 lookup 4143 2>/dev/null || :
ip -6 route del local ::/0 dev lo table 4143 2>/dev/null || :
# release
nft insert rule inet meshlib_tproxy pre return 2>/dev/null || :
