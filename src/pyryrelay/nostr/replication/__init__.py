"""Events between hosts: what one host has stored is announced to the cluster, and the others take it in."""
