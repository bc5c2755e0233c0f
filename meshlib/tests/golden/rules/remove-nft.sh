nft delete table inet meshlib_tproxy 2>/dev/null || :
while ip -4 rule del pref 7089 2>/dev/null; do :; done
ip -4 route del local 0.0.0.0/0 dev lo table 100 2>/dev/null || :
while ip -6 rule del pref 7089 2>/dev/null; do :; done
ip -6 route del local ::/0 dev lo table 100 2>/dev/null || :
