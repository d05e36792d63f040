"""Everything that touches a connection: Twisted and Autobahn live here and nowhere else.

``wire`` does I/O and never decides: whom to admit is asked of ``guard``, what to do with messages of an
`pyryrelay.application.Application`.
"""
