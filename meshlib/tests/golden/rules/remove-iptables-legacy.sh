while iptables-legacy -w 5 -t mangle -D PREROUTING -j MESHLIB_GUARD 2>/dev/null; do :; done
while iptables-legacy -w 5 -t nat -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while iptables-legacy -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while iptables-legacy -w 5 -t mangle -D OUTPUT -p tcp -j MESHLIB_OUT 2>/dev/null; do :; done
while iptables-legacy -w 5 -t raw -D PREROUTING -p tcp -j MESHLIB_PREROUTING 2>/dev/null; do :; done
while iptables-legacy -w 5 -t raw -D OUTPUT -p tcp -j MESHLIB_OUTPUT 2>/dev/null; do :; done
iptables-legacy -w 5 -t mangle -F MESHLIB_GUARD 2>/dev/null || :
iptables-legacy -w 5 -t mangle -X MESHLIB_GUARD 2>/dev/null || :
iptables-legacy -w 5 -t nat -F MESHLIB_PRE 2>/dev/null || :
iptables-legacy -w 5 -t nat -X MESHLIB_PRE 2>/dev/null || :
iptables-legacy -w 5 -t mangle -F MESHLIB_PRE 2>/dev/null || :
iptables-legacy -w 5 -t mangle -X MESHLIB_PRE 2>/dev/null || :
iptables-legacy -w 5 -t mangle -F MESHLIB_OUT 2>/dev/null || :
iptables-legacy -w 5 -t mangle -X MESHLIB_OUT 2>/dev/null || :
iptables-legacy -w 5 -t mangle -F MESHLIB_DIVERT 2>/dev/null || :
iptables-legacy -w 5 -t mangle -X MESHLIB_DIVERT 2>/dev/null || :
iptables-legacy -w 5 -t raw -F MESHLIB_PREROUTING 2>/dev/null || :
iptables-legacy -w 5 -t raw -X MESHLIB_PREROUTING 2>/dev/null || :
iptables-legacy -w 5 -t raw -F MESHLIB_OUTPUT 2>/dev/null || :
iptables-legacy -w 5 -t raw -X MESHLIB_OUTPUT 2>/dev/null || :
while ip6tables-legacy -w 5 -t mangle -D PREROUTING -j MESHLIB_GUARD 2>/dev/null; do :; done
while ip6tables-legacy -w 5 -t nat -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while ip6tables-legacy -w 5 -t mangle -D PREROUTING -p tcp -j MESHLIB_PRE 2>/dev/null; do :; done
while ip6tables-legacy -w 5 -t mangle -D OUTPUT -p tcp -j MESHLIB_OUT 2>/dev/null; do :; done
while ip6tables-legacy -w 5 -t raw -D PREROUTING -p tcp -j MESHLIB_PREROUTING 2>/dev/null; do :; done
while ip6tables-legacy -w 5 -t raw -D OUTPUT -p tcp -j MESHLIB_OUTPUT 2>/dev/null; do :; done
ip6tables-legacy -w 5 -t mangle -F MESHLIB_GUARD 2>/dev/null || :
ip6tables-legacy -w 5 -t mangle -X MESHLIB_GUARD 2>/dev/null || :
ip6tables-legacy -w 5 -t nat -F MESHLIB_PRE 2>/dev/null || :
ip6tables-legacy -w 5 -t nat -X MESHLIB_PRE 2>/dev/null || :
ip6tables-legacy -w 5 -t mangle -F MESHLIB_PRE 2>/dev/null || :
ip6tables-legacy -w 5 -t mangle -X MESHLIB_PRE 2>/dev/null || :
ip6tables-legacy -w 5 -t mangle -F MESHLIB_OUT 2>/dev/null || :
ip6tables-legacy -w 5 -t mangle -X MESHLIB_OUT 2>/dev/null || :
ip6tables-legacy -w 5 -t mangle -F MESHLIB_DIVERT 2>/dev/null || :
ip6tables-legacy -w 5 -t mangle -X MESHLIB_DIVERT 2>/dev/null || :
ip6tables-legacy -w 5 -t raw -F MESHLIB_PREROUTING 2>/dev/null || :
ip6tables-legacy -w 5 -t raw -X MESHLIB_PREROUTING 2>/dev/null || :
ip6tables-legacy -w 5 -t raw -F MESHLIB_OUTPUT 2>/dev/null || :
ip6tables-legacy -w 5 -t raw -X MESHLIB_OUTPUT 2>/dev/null || :
while ip -4 rule del pref 7089 2>/dev/null; do :; done
ip -4 route del local 0.0.0.0/0 dev lo table 100 2>/dev/null || :
while ip -6 rule del pref 7089 2>/dev/null; do :; done
ip -6 route del local ::/0 dev lo table 100 2>/dev/null || :
