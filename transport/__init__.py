"""HTTP on sockets: the way to providers behind one small interface (:mod:`transport.messages`)."""
