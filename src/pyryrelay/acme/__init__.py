"""Automatic certificates by ACME (RFC 8555): ordered, kept in a folder, and renewed in time.

A child process speaks with the certification authority, with the package ``acme`` of certbot. The relay itself only
answers its challenges.
"""
