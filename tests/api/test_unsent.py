"""What the service holds of an answer that its client does not take."""

import socket

from app.protocol import UNSENT_BYTES
from tests.api.service import Service


def test_a_connection_has_the_limit_of_unsent_bytes(service: Service) -> None:
    with socket.create_connection(service.address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        mine = connection.getsockname()
        (limits,) = [
            protocol.transport.get_write_buffer_limits()
            for protocol in list(service.server.server_state.connections)
            if protocol.transport.get_extra_info("peername") == mine
        ]
    assert limits[1] == UNSENT_BYTES
