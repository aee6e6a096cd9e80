"""Sockets and connections: from an address of the conf file to requests of HTTP/1.1 and HTTP/2."""
